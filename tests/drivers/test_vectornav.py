import binascii
from pathlib import Path

import numpy as np
import pytest

from drivers.base import Unavailable
from drivers.imu.vectornav import Output, Vectornav, VectornavConfig, VectornavParser
from drivers.lib.framing_variable import MORE, NO_FRAME, VariableScanner
from drivers.lib.inertial import si_steps
from drivers.lib.vectornav import GROUPS, MAX_ASCII_BYTES, MAX_BINARY_BYTES, VectorNavFormat
from hil.emulators.vectornav import VectornavEmulator, encode_ascii, encode_binary
from tests.drivers.damage import (
    START_NS,
    check_damage,
    check_losses,
    check_splits,
    feed,
    passes_xor,
    read_until,
    samples,
)


def ascii_parser() -> VectornavParser:
    return VectornavParser("ascii", 115200)


def binary_parser() -> VectornavParser:
    return VectornavParser("binary", 115200)


def made_rows(count: int = 400) -> np.ndarray:
    """Acceleration in mm/s2 and rates in urad/s, so that ASCII carries them exactly."""
    rng = np.random.default_rng(1)
    rows = np.stack([rng.integers(-9000, 9000, count) / 1000] * 3 + [rng.integers(-999999, 999999, count) / 1e6] * 3, 1)
    return rows.astype(np.float32)


def driver_for(emulator: VectornavEmulator, output: Output) -> Vectornav:
    return Vectornav("imu0", VectornavConfig(port=str(emulator.link), rate_hz=50, output=output))


@pytest.mark.parametrize("digits", ["xor", "crc"])
def test_damaged_lines_give_no_wrong_value(digits: str) -> None:
    line = encode_ascii(made_rows(1)[0])
    blind = passes_xor
    if digits == "crc":
        text = line[1 : line.index(b"*")]
        line = b"$%s*%04X\r\n" % (text, binascii.crc_hqx(text, 0))

        def blind(_: bytes) -> bool:
            return False

    check_damage(ascii_parser, line, MAX_ASCII_BYTES, blind)
    check_splits(ascii_parser, line)


def test_damaged_binary_messages_give_no_wrong_value() -> None:
    message = encode_binary(made_rows(1)[0], 0xFA24FA1234)
    check_damage(binary_parser, message, MAX_BINARY_BYTES)
    check_splits(binary_parser, message)


def test_any_mixture_of_both_is_read() -> None:
    rows = made_rows(20)
    stream = b"".join(encode_binary(row, i * 20_000_000) + encode_ascii(row) for i, row in enumerate(rows))
    steps, _ = si_steps(rows)
    for chunk in (5, 17, 160, 10_000):
        assert np.array_equal(feed(binary_parser(), stream, chunk), steps)
        assert np.abs(feed(ascii_parser(), stream, chunk) - steps).max() <= 1


def test_a_header_with_two_groups_has_the_documented_length() -> None:
    scanner = VariableScanner(VectorNavFormat())
    body = bytes.fromhex("fa143e003a00") + bytes(116)
    message = body + binascii.crc_hqx(body[1:], 0).to_bytes(2, "big")
    assert len(message) == 124
    assert scanner.feed(message * 2).lengths.tolist() == [124, 124]


def told_length(head: bytes) -> int:
    """Of a binary message, by the rule in its plainest form."""
    if len(head) < 2:
        return MORE
    groups = [group for group in range(8) if head[1] >> group & 1]
    if not groups or not set(groups) <= set(GROUPS):
        return NO_FRAME
    length = 2 + 2 * len(groups) + 2
    for position, group in enumerate(groups):
        word = head[2 + 2 * position : 4 + 2 * position]
        fields = int.from_bytes(word, "little")
        if fields >> len(GROUPS[group]) or (len(word) == 2 and not fields):
            return NO_FRAME
        length += sum(size for bit, size in enumerate(GROUPS[group]) if fields >> bit & 1)
    if length > MAX_BINARY_BYTES:
        return NO_FRAME
    return length if len(head) >= 2 + 2 * len(groups) else MORE


def test_every_binary_header_whole_or_cut_has_the_length_of_its_fields() -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for groups in range(256):
        for density in (0.05, 0.2, 0.5) * 4:
            bits = rng.random((5, 16)) < density
            bits[:, 10:] &= rng.random((5, 6)) < 0.3
            head = bytes([0xFA, groups]) + np.packbits(bits, bitorder="little").tobytes()
            for size in (1, 2, 3, 4, 5, 7, 12):
                (found,) = VectorNavFormat().lengths(np.frombuffer(head[:size], np.uint8), np.array([0])).tolist()
                assert found == told_length(head[:size]), head[:size].hex(" ")
                seen.add(min(found, 1))
    assert seen == {MORE, NO_FRAME, 1}


def test_lines_of_every_message_width_and_checksum_may_be_mixed() -> None:
    rows = made_rows(60)
    before = {b"YMR": 6, b"QMR": 7, b"IMU": 3, b"MAR": 3}
    behind = {b"IMU": 2}
    stream = b""
    for index, row in enumerate(rows):
        name = list(before)[index % 4]
        own = [f"{value:{'+08.3f' if index % 3 else '.3f'}}" for value in row[:3].tolist()]
        own += [f"{value:+.6f}" for value in row[3:].tolist()]
        fields = ["+00.5"] * before[name] + own + ["1e2"] * behind.get(name, 0)
        text = b"VN" + name + b"," + ",".join(fields).encode()
        total = int(np.bitwise_xor.reduce(np.frombuffer(text, np.uint8)))
        stream += b"$%s*%04X\r\n" % (text, binascii.crc_hqx(text, 0)) if index % 5 else b"$%s*%02X\r\n" % (text, total)
    for chunk in (40, 900, 100_000):
        assert np.abs(feed(ascii_parser(), stream, chunk) - si_steps(rows)[0]).max() <= 1


@pytest.mark.parametrize(
    ("groups", "fields", "order"),
    [("01", "2001", "ga"), ("01", "0002", "ag"), ("04", "0006", "ag"), ("04", "0c00", "ag")],
)
def test_each_pair_of_fields_gives_rows(groups: str, fields: str, order: str) -> None:
    row = made_rows(1)
    parts = {"a": row[0, :3].astype("<f4").tobytes(), "g": row[0, 3:].astype("<f4").tobytes()}
    body = bytes.fromhex(f"fa{groups}{fields}") + b"".join(parts[part] for part in order)
    message = body + binascii.crc_hqx(body[1:], 0).to_bytes(2, "big")
    rows = binary_parser().feed(message, START_NS)
    assert np.array_equal(rows.values, si_steps(row)[0])
    assert rows.ticks.tolist() == [-1]


def test_a_number_out_of_range_is_dropped_counted_and_missing() -> None:
    rows = made_rows(5)
    rows[2, 1] = 99999
    receiver = ascii_parser()
    found = receiver.feed(b"".join(encode_ascii(row) for row in rows), START_NS)
    assert len(found.values) == 4
    assert found.missing.tolist() == [0, 0, 1, 0]
    assert receiver.tally()[3] == 1


@pytest.mark.parametrize("output", ["ascii", "binary"])
def test_rows_arrive_with_their_times_and_losses_are_counted(tmp_path: Path, output: Output) -> None:
    rows = made_rows()
    with VectornavEmulator(rows, 50, tmp_path / "imu", output="both") as emulator:
        driver = driver_for(emulator, output)
        driver.open()
        packets = read_until(driver, lambda p: samples(p) >= 40)
        at = 20 if output == "binary" else 38 + 80
        emulator.flip_bit(at, 0)
        packets += read_until(driver, lambda _: driver.counters.lost >= 1)
        emulator.fault(lambda row: row[:at] + row[at + 3 :])
        packets += read_until(driver, lambda _: driver.counters.lost >= 2)
        packets += read_until(driver, lambda p: samples(p) >= 40)
        driver.close()
    steps, _ = si_steps(rows)
    # ASCII rounds to the last digit, single precision does not.
    indices = [int(np.abs(steps - packet.data[0]).max(axis=1).argmin()) for packet in packets]
    check_losses(packets, indices)
    assert driver.counters.lost == 2
    error_ns = [packet.t0_ns - emulator.measured_at_ns(i) for packet, i in zip(packets, indices, strict=True)]
    assert np.median(np.abs(error_ns)) < 15_000_000


def test_the_other_kind_of_output_alone_is_noted(tmp_path: Path) -> None:
    with VectornavEmulator(made_rows(), 50, tmp_path / "imu", output="ascii") as emulator:
        driver = driver_for(emulator, "binary")
        driver.open()
        read_until(driver, lambda _: "no_rows" in driver.counters.notes)
        driver.close()


def test_a_gyroscope_that_never_moves_is_noted(tmp_path: Path) -> None:
    rows = made_rows()
    rows[:, 3:] = 0
    with VectornavEmulator(rows, 50, tmp_path / "imu", output="binary") as emulator:
        driver = driver_for(emulator, "binary")
        driver.open()
        read_until(driver, lambda _: "stuck_gyro" in driver.counters.notes)
        driver.close()


def test_bytes_that_are_no_messages_become_a_sentence(tmp_path: Path) -> None:
    with VectornavEmulator(made_rows(), 50, tmp_path / "imu") as emulator:
        driver = driver_for(emulator, "ascii")
        driver.open()
        for _ in range(500):
            emulator.fault(lambda row: bytes(byte ^ 0x5A for byte in row))
        with pytest.raises(Unavailable, match=r"no valid frame in 5 s on .*VectorNav.*baud = 921600"):
            read_until(driver, lambda _: False)
        driver.close()
