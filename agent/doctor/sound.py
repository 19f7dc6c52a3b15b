"""Microphones: is the card there, has it that name, and can it do the rate?"""

import re
from collections.abc import Iterator

from agent.doctor.finding import Finding
from agent.doctor.listening import SOUND
from agent.doctor.scene import Scene
from drivers.inventory import capture_devices

_CARD = re.compile(r"(?P<plug>plug)?hw:(CARD=)?(?P<card>[^,]+)")


def look(scene: Scene) -> Iterator[Finding]:
    """Every sensor that is an ALSA device of a card; other ALSA names (pulse, default) are opened and tell."""
    devices = capture_devices(scene.root / "proc")
    there = ", ".join(device.device for device in devices) or "none"
    cards = {_card(device.device): device for device in devices}
    for name, sensor in scene.settings.sensors.items():
        if sensor.kind != SOUND:
            continue
        device, rate_hz = str(getattr(sensor.settings, "device", "")), int(getattr(sensor.settings, "rate_hz", 0))
        where = f"sensors.{name}.device"
        facts: dict[str, object] = {"device": device, "there": there, "rate_hz": rate_hz}
        match = _CARD.match(device)
        if not devices:
            yield Finding(
                "audio.no_card", "problem", "{device} is wanted, but no sound card that records is here", where,
                "plug the microphone in; a USB microphone needs snd-usb-audio in the kernel",
                ("arecord -l", "sudo dmesg | grep -i audio | tail"), facts,
            )  # fmt: skip
        elif match is not None and match["card"] not in cards:
            yield Finding(
                "audio.unknown_card", "problem", "no card is called as in {device}; capture devices are: {there}",
                where, "write the name of one that is there", ("arecord -L",), facts,
            )  # fmt: skip
        elif match is not None:
            yield from _card_findings(scene, match["card"], bool(match["plug"]), where, facts)


def _card(device: str) -> str:
    match = _CARD.match(device)
    return match["card"] if match else device


def _card_findings(scene: Scene, card: str, converts: bool, where: str, facts: dict[str, object]) -> Iterator[Finding]:
    rates_hz = _rates_hz(scene, card)
    wanted_hz = facts["rate_hz"]
    if rates_hz and wanted_hz not in rates_hz and not converts:
        yield Finding(
            "audio.rate", "problem", "{device} cannot record at {rate_hz} Hz; it can {rates} Hz", where,
            'set rate_hz to one of these, or let ALSA convert: device = "plug{device}"',
            ("arecord -D {device} --dump-hw-params -d 1 /dev/null",),
            {**facts, "rates": ", ".join(map(str, rates_hz))},
        )  # fmt: skip
    else:
        yield Finding("audio.card", "ok", "{device} is there", where, facts=facts)


def _rates_hz(scene: Scene, card: str) -> list[int]:
    """What a USB microphone says that it can do; nothing for cards that do not tell."""
    number = next(
        (
            m[1]
            for line in scene.lines("proc/asound/cards")
            if (m := re.match(rf"\s*(\d+) \[{re.escape(card)}\s*\]", line))
        ),
        None,
    )
    capture = False
    rates: set[int] = set()
    for line in scene.lines(f"proc/asound/card{number}/stream0"):
        capture = line.startswith("Capture") or (capture and not line.startswith("Playback"))
        if capture and (match := re.match(r"\s+Rates: ([\d, ]+)$", line)):
            rates |= {int(part) for part in match[1].split(",")}
    return sorted(rates)
