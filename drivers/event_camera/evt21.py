"""EVT2.1 recordings as blocks of events: EVT2 words, each with a mask of the 32 pixels from its x on.

Format: Prophesee's "EVT 2.1" page. The two halves of its words of 64 bits stand in either order: the mask first
(GenX320), or last (IMX636). So does OpenEB tell them apart: the latter's header says ``endianness=legacy``.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drivers.base import Misconfigured
from drivers.event_camera.words import NS_PER_US, Block, Size
from drivers.packet import EVENT

WORD_BYTES = 8
BLOCK_BYTES = WORD_BYTES << 13
"""Up to 32 events come of a word."""
TIME_HIGH = 8
TIME_HIGH_WRAP_US = 1 << 34


def evt21(path: Path, data_at: int, size: Size, mask_first: bool) -> Iterator[Block]:
    """Starts at byte ``data_at``. Raises Misconfigured for an event outside of ``size``, OSError.

    The upper 28 of 34 bits of time come from TIME_HIGH words; one below its predecessor means that they ran over.
    Events before the first of them tell no time; they get 0.
    """
    at = high_us = 0
    with path.open("rb") as file:
        file.seek(data_at)
        while raw := file.read(BLOCK_BYTES):
            halves = np.frombuffer(raw[: len(raw) - len(raw) % WORD_BYTES], "<u4").reshape(-1, 2)
            words, masks = (halves[:, ::-1] if mask_first else halves).T
            kind = words >> 28
            is_high = kind == TIME_HIGH
            steps_us = np.append(high_us % TIME_HIGH_WRAP_US, (words[is_high].astype(np.int64) & 0x0FFF_FFFF) << 6)
            ran_over = np.cumsum(np.diff(steps_us, prepend=steps_us[:1]) < 0)
            highs_us = steps_us + (high_us // TIME_HIGH_WRAP_US + ran_over) * TIME_HIGH_WRAP_US
            high_us = int(highs_us[-1])
            is_cd = kind < 2
            cd = words[is_cd]
            pixels = np.unpackbits(masks[is_cd].view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
            which, behind = np.nonzero(pixels)
            if not len(which):
                continue
            t_us = highs_us[np.cumsum(is_high)[is_cd]] + (cd >> 22 & 0x3F)
            events = np.empty(len(which), EVENT)
            events["x"], events["y"] = (cd >> 11 & 0x7FF)[which] + behind, (cd & 0x7FF)[which]
            events["on"] = (cd >> 28)[which]
            outside = (events["x"] >= size[0]) | (events["y"] >= size[1])
            if outside.any():
                raise Misconfigured(
                    f"{path}: event {at + int(outside.argmax())} lies outside of {size[0]} x {size[1]} pixels; "
                    "set geometry to the camera's"
                )
            yield Block(t_us[which] * NS_PER_US, events)
            at += len(events)
