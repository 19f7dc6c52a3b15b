"""Files of packets: what is saved is loaded, and everything else is one sentence."""

import io
import json
import os
import resource
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers import recording
from drivers.base import Misconfigured
from drivers.packet import EVENT, Packet
from drivers.replay import Replay, ReplayConfig
from tests.drivers.recordings import INFO, packets, same


@pytest.fixture
def path(tmp_path: Path) -> Path:
    recording.save(tmp_path / "a.npz", INFO, packets())
    return tmp_path / "a.npz"


def test_what_was_saved_is_loaded(path: Path) -> None:
    loaded = recording.load(path)
    assert loaded.info == INFO
    assert loaded.sensor == "imu0"
    for left, right in zip(loaded.packets, packets(), strict=True):
        assert same(left, right)
        assert (left.seq, left.t0_ns, left.dt_ns) == (right.seq, right.t0_ns, right.dt_ns)
        assert not left.data.flags.writeable
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()
    mixed = [*packets(1), Packet("imu0", 1, 0, 1, np.zeros((1, 2), np.int32))]
    with pytest.raises(ValueError, match="one sensor and one integer type"):
        recording.save(path, INFO, mixed)
    with pytest.raises(ValueError, match="one packet or more"):
        recording.save(path, INFO, [])
    narrow = [*packets(1), Packet("imu0", 1, 0, 1, np.zeros((1, 3), np.int16))]
    with pytest.raises(ValueError, match="dimensions"):
        recording.save(path, INFO, narrow)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_disk_that_does_not_take_it_keeps_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    noise = np.random.default_rng(1).integers(-9999, 9999, (5000, 2)).astype(np.int16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            recording.save(path, INFO, [Packet("imu0", 0, 0, 1, noise)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "flipped":
        middle = len(whole) // 3
        path.write_bytes(whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 40]) + whole[middle + 40 :])
    elif how == "text":
        path.write_text("not an archive")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one array":
        with path.open("wb") as file:
            np.save(file, arrays["data"])
    else:
        name, _, value = how.partition("=")
        if name == "drop":
            del arrays[value]
        elif name == "pickle":
            arrays["data"] = np.array([[{}, {}]], object)
        elif name == "header":
            arrays["header"] = np.frombuffer(value.encode(), np.uint8)
        elif name == "length":
            arrays["length"] = arrays["length"] + int(value)
        elif name == "dtype":
            arrays["data"] = arrays["data"].astype(value)
        elif name == "t0_ns":
            arrays["t0_ns"] = arrays["t0_ns"][:-1]
        with path.open("wb") as file:
            np.savez(file, **arrays)


FOREIGN = (
    '{"format": "x", "sensor": "a", "info": {"family": "imu", "channels": [], "units": [], "scale": [], "rate_hz": 1}}'
)
DAMAGES = (
    *("cut", "flipped", "text", "empty", "one array", "drop=lost", "drop=header", "pickle=", "header={}", "header=[1]"),
    *("header=\xff", f"header={FOREIGN}", "length=1", "length=-9", "dtype=float64", "t0_ns="),
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_broken_recording_is_one_sentence(path: Path, how: str) -> None:
    damaged(path, how)
    for action in (Replay("imu0", ReplayConfig(path=path)).open, Replay("imu0", ReplayConfig(path=path)).info):
        with pytest.raises(Misconfigured, match=r"a.npz: cannot be replayed, .*; record it again") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none.npz: cannot be opened \(No such file or directory\)"):
        recording.load(tmp_path / "none.npz")


def test_any_damaged_byte_is_noticed_or_harmless(path: Path) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.choice(len(whole), 150, replace=False).tolist():
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << (position % 8))]) + whole[position + 1 :])
        try:
            loaded = recording.load(path)
        except Misconfigured:
            refused += 1
        else:
            assert all(same(left, right) for left, right in zip(loaded.packets, packets(), strict=True))
    assert refused > 50


EVENTS = np.array([(100, 1, 2, 0), (200, 3, 4, 1), (300, 5, 6, 0)], EVENT)
"""Three events, one in each of three packets."""


def stored(info: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Arrays of a good recording of three packets, with some of its facts or arrays replaced."""
    header = {"format": recording.FORMAT, "sensor": "imu0", "info": asdict(INFO) | (info or {})}
    return {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "data": np.arange(6, dtype=np.int16).reshape(3, 2),
        "length": np.array([1, 1, 1]),
        "t0_ns": np.array([100, 200, 300]),
        "dt_ns": np.array([100, 100, 100]),
        "lost": np.array([0, 0, 0]),
    } | changes


def test_what_the_next_test_changes_is_good(tmp_path: Path) -> None:
    for arrays in (stored(), stored(data=EVENTS, dt_ns=np.zeros(3, int))):
        np.savez_compressed(tmp_path / "a.npz", **arrays)
        assert len(recording.load(tmp_path / "a.npz").packets) == 3


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        (stored({"scale": [1.0]}), "2 channels have 2 units and 1 factors"),
        (stored({"units": []}), "2 channels have 0 units"),
        (stored({"units": "gg"}), "lists"),
        (stored({"channels": ["x", 2]}), "texts"),
        (stored({"scale": [1.0, float("nan")]}), "finite numbers"),
        (stored({"scale": ["1", "1"]}), "finite numbers"),
        (stored({"rate_hz": -1}), "no sample rate"),
        (stored({"rate_hz": float("inf")}), "no sample rate"),
        (stored({"rate_hz": 10**400}), "header is wrong"),
        (stored({"rate_hz": 0}), "need a period and a rate"),
        (stored(header=np.frombuffer(b"[" * 100_000, np.uint8)), "header is wrong"),
        (stored(header=np.zeros(5_000_000, np.uint8)), "header is wrong: 5000000 bytes"),
        (stored(t0_ns=np.array([100, 300, 200])), "times go back"),
        (stored(t0_ns=np.array([-1, 300, 400])), "times or losses that are impossible"),
        (stored(t0_ns=np.array([0, 0, 2**63 - 1])), "times or losses that are impossible"),
        (stored(dt_ns=np.array([1, 1, 2**63 - 1])), "times or losses that are impossible"),
        (stored(lost=np.array([0, -1, 0])), "times or losses that are impossible"),
        (stored(dt_ns=np.array([0, 100, 100])), "sample periods are impossible"),
        (stored(data=EVENTS), "sample periods are impossible"),
        (stored(data=EVENTS[::-1], dt_ns=np.zeros(3, int)), "times go back"),
        (stored(data=np.zeros((3, 2), ">i2")), "of type '>i2'"),
        (stored(data=np.zeros((3, 2, 1), np.int16)), "its data is int16"),
        (stored(data=np.zeros((3, 2, 1, 1, 1), np.int16)), "no array as numpy writes it"),
        (stored(length=np.array([2**63 - 1, 2**63 - 1, 5])), "samples, its data has 3"),
        (stored(length=np.zeros(0, int)), "arrays of one length"),
    ],
)
def test_facts_that_do_not_fit_together_are_one_sentence(tmp_path: Path, arrays: dict[str, Any], why: str) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **arrays)
    with pytest.raises(Misconfigured, match=rf"a.npz: cannot be replayed, .*{why}.*; record it again"):
        recording.load(path)


def packed(path: Path, kind: int, content: Callable[[bytes], bytes] = bytes) -> None:
    """A good recording as an archive of that kind; ``content`` changes the member of the data."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, array in stored().items():
            member = io.BytesIO()
            np.save(member, array)
            raw = member.getvalue()
            archive.writestr(f"{name}.npy", content(raw) if name == "data" else raw)


def npy(header: bytes, version: bytes = b"\x01\x00") -> Callable[[bytes], bytes]:
    return lambda raw: b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + raw[128:]


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_of_another_kind_is_refused(tmp_path: Path, kind: int) -> None:
    packed(tmp_path / "a.npz", kind)
    with pytest.raises(Misconfigured, match="packed or encrypted"):
        recording.load(tmp_path / "a.npz")


def test_an_encrypted_archive_is_refused(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = raw.find(signature)
        while at >= 0:
            raw[at + offset] |= 1
            at = raw.find(signature, at + 4)
    path.write_bytes(raw)
    with pytest.raises(Misconfigured, match="packed or encrypted"):
        recording.load(path)


@pytest.mark.parametrize(
    "content",
    [
        npy(b"(" * 5000),
        npy(b"  1\n 2\n"),
        npy(b"{'descr': '<i2', 'fortran_order': False, 'shape': (3, 2,"),
        npy(b"{'descr': '<i2', 'fortran_order': False, 'shape': (100000000000000, 1), }\n"),
        npy(b"{'descr': '<i2', 'fortran_order': False, 'shape': (-3, 2), }\n"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 2), }\n"),
        npy(b"", b"\x09\x00"),
        lambda raw: raw[:5],
        lambda raw: raw + b"\0",
    ],
)
def test_an_array_that_numpy_would_stumble_over_is_one_sentence(
    tmp_path: Path, content: Callable[[bytes], bytes]
) -> None:
    packed(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, content)
    with pytest.raises(Misconfigured, match=r"a.npz: cannot be replayed, .*; record it again"):
        recording.load(tmp_path / "a.npz")


def test_what_inflates_to_more_than_it_says_takes_no_memory(tmp_path: Path) -> None:
    """A member of 64 MiB of zeros whose directory entry admits to 1 KiB."""
    path = tmp_path / "a.npz"
    packed(path, zipfile.ZIP_DEFLATED, lambda raw: raw + bytes(1 << 26))
    size = (128 + 12 + (1 << 26)).to_bytes(4, "little")
    raw = path.read_bytes()
    assert raw.count(size) == 2
    path.write_bytes(raw.replace(size, (1024).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(Misconfigured, match="damaged"):
            recording.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_what_says_that_it_inflates_to_too_much_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.lib.npz.MOST_BYTES", 1000)
    with pytest.raises(Misconfigured, match=r"its arrays take \d+ bytes, at most 1000 are read"):
        recording.load(path)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_BYTES", recording._MOST_HEADER_BYTES + 100)
    with pytest.raises(OSError, match="too many for one recording"):
        recording.save(tmp_path / "a.npz", INFO, packets())
    assert not list(tmp_path.iterdir())


def test_a_channel_order_of_numpy_s_own_is_kept(tmp_path: Path) -> None:
    """numpy joins arrays that are stored by column to one that is."""
    turned = [replace(packet, data=np.asfortranarray(packet.data)) for packet in packets()]
    recording.save(tmp_path / "a.npz", INFO, turned)
    assert all(map(same, recording.load(tmp_path / "a.npz").packets, packets()))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("pipe.npz", "."):
        with pytest.raises(Misconfigured, match="it is no regular file"):
            recording.load(tmp_path / name)
    with pytest.raises(Misconfigured, match="embedded null"):
        recording.load(tmp_path / "a\0.npz")
