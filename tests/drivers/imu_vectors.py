"""What the published and recorded vectors of inertial sensors must give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.imu.bno08x_rvc import Bno08xRvc, Bno08xRvcConfig, RvcParser
from drivers.imu.mavlink import MavlinkParser, dialect_for
from drivers.imu.vectornav import Vectornav, VectornavConfig, VectornavParser
from drivers.imu.witmotion import FORMAT, RowJoiner, Witmotion, WitmotionConfig
from drivers.imu.xsens import Xsens, XsensConfig, XsensParser
from drivers.lib import xbus
from drivers.lib.framing import FrameScanner
from drivers.lib.framing_variable import VariableScanner
from drivers.lib.mavlink import MavlinkFormat, message_ids, payloads
from drivers.lib.vectornav import field_offsets
from tests.drivers.damage import START_NS, raw_bytes

Vector = dict[str, Any]
G_IN_SI = [9.80665] * 3 + [np.pi / 180] * 3
WIT_ACC, WIT_GYRO = bytes.fromhex("55519FFDE8FFA507350B15"), bytes.fromhex("5552000000000000350BE7")
WIT_TIME = bytes.fromhex("55501805110E341179009F")
WIT_WORDS: dict[str, list[tuple[str, float]]] = {
    "acc": [("ax_g", 16 / 32768), ("ay_g", 16 / 32768), ("az_g", 16 / 32768), ("temp_c", 0.01)],
    "gyro": [("wx_dps", 2000 / 32768), ("wy_dps", 2000 / 32768), ("wz_dps", 2000 / 32768), ("raw4", 1)],
    "angle": [("roll_deg", 180 / 32768), ("pitch_deg", 180 / 32768), ("yaw_deg", 180 / 32768), ("raw4", 1)],
    "mag": [("hx", 1), ("hy", 1), ("hz", 1), ("raw4", 1)],
}
XBUS_ITEMS = {
    "packet_counter": (0x1020, ">u2"),
    "sample_time_fine": (0x1060, ">u4"),
    "quat": (0x2010, ">f4"),
    "acc": (0x4020, ">f4"),
    "gyr": (0x8020, ">f4"),
    "mag": (0xC020, ">f4"),
    "temp_c": (0x0810, ">f4"),
    "pressure_pa": (0x3010, ">u4"),
    "status": (0xE020, ">u4"),
}


def bno08x(vector: Vector, _: Path) -> None:
    expect = vector["expect"].get("frame0", vector["expect"])
    rows = RvcParser(115200).feed(raw_bytes(vector), START_NS)
    assert len(rows.values) == vector["checksum_ok"]
    if vector["checksum_ok"]:
        values = rows.values[0] * np.array(Bno08xRvc("imu0", Bno08xRvcConfig(port="x")).info().scale)
        assert rows.ticks.tolist() == [expect["index"]]
        assert (values[:3] * 1000).tolist() == pytest.approx([expect["ax_mg"], expect["ay_mg"], expect["az_mg"]])
        assert values[3:].tolist() == pytest.approx([expect["yaw_deg"], expect["pitch_deg"], expect["roll_deg"]])


def witmotion(vector: Vector, _: Path) -> None:
    raw, expect, kind = raw_bytes(vector), vector["expect"], vector["expect"]["type"]
    scanner = FrameScanner(FORMAT)
    (frame,) = scanner.feed(raw).data
    assert (scanner.bad_checksums, scanner.skipped_bytes) == (0, 0)
    words = frame[2:10].copy().view("<i2").astype(float)
    for word, (name, scale) in zip(words, WIT_WORDS.get(kind, []), strict=False):
        assert word * scale == pytest.approx(expect[name], abs=6e-5)
    if kind == "quat":
        assert (words / 32768).tolist() == pytest.approx(expect["q"], abs=1e-6)
    elif kind == "baro":
        assert frame[2:10].copy().view("<i4").tolist() == [expect["pressure_pa"], expect["height_cm"]]
    # Of the row in which a stream begins nothing is kept: a whole one comes first.
    before, after = (WIT_ACC, b"") if kind == "gyro" else (b"", WIT_ACC if kind == "time" else b"")
    rows = RowJoiner(115200).feed(WIT_TIME + WIT_ACC + WIT_GYRO + before + raw + after + WIT_GYRO, START_NS)
    scale = np.array(Witmotion("imu0", WitmotionConfig(port="x")).info().scale)
    assert len(rows.values) == (2 if kind in ("acc", "gyro", "time") else 1)
    if kind == "acc":
        assert (rows.values[1] * scale)[:3].tolist() == pytest.approx([expect[f"a{a}_g"] for a in "xyz"], abs=6e-6)
    elif kind == "gyro":
        assert (rows.values[1] * scale)[3:].tolist() == pytest.approx([expect[f"w{a}_dps"] for a in "xyz"], abs=1e-4)
    elif kind == "time":
        day_s = (expect["hour"] * 60 + expect["minute"]) * 60 + expect["second"]
        assert rows.ticks[1] == day_s * 1000 + expect["ms"]


def no_witmotion(vector: Vector, _: Path) -> None:
    """Frames of CAN and Bluetooth models, which a serial port never carries, and which have no checksum."""
    joiner = RowJoiner(115200)
    assert len(joiner.feed(raw_bytes(vector) * 3, START_NS).values) == 0
    assert joiner.tally()[0] == 0


def xsens(vector: Vector, _: Path) -> None:
    raw, expect = raw_bytes(vector), vector["expect"]
    receiver = XsensParser(115200)
    rows = receiver.feed(raw, START_NS)
    assert receiver.tally()[:3].tolist() == [1, 0, 0]
    assert raw[2] == int(expect["mid"][:4], 16)
    if raw[2] != xbus.MTDATA2:
        assert len(rows.values) == 0
        assert xbus_reply(raw) == {name: value for name, value in expect.items() if name != "mid"}
        return
    layout = xbus.layout_of(raw)
    assert layout.complete
    for name, (kind, dtype) in XBUS_ITEMS.items():
        if name in expect:
            at, size = layout.items[kind]
            wanted = int(expect[name], 16) if name == "status" else expect[name]
            assert np.frombuffer(raw[at : at + size], dtype) == pytest.approx(np.atleast_1d(wanted), rel=1e-5)
    in_si = rows.values[0] * np.array(Xsens("imu0", XsensConfig(port="x")).info().scale) * G_IN_SI
    assert in_si[:3].tolist() == pytest.approx(expect["acc"], abs=6e-6)
    assert in_si[3:].tolist() == pytest.approx(expect["gyr"], abs=6e-7)
    assert rows.ticks.tolist() == [expect["sample_time_fine"]]
    # The shaken packet says that it is clipped, which its values do not show.
    assert receiver.tally()[3] == ("clipping" in expect.get("flags", ""))


def xbus_reply(raw: bytes) -> dict[str, object]:
    """What a message says that is no measurement."""
    data = raw[4:-1]
    if raw[2] == 0x03:
        return {"device_id": data.hex().upper()}
    if raw[2] == 0xC1:
        pairs = np.frombuffer(data, ">u2").reshape(-1, 2).tolist()
        return {"items": [[f"0x{kind:04x}", rate] for kind, rate in pairs]}
    if raw[2] == 0x13:
        build, svn = np.frombuffer(data[3:], ">u4").tolist()
        return {"version": ".".join(map(str, data[:3])), "build": build, "svn": svn}
    return {}


def vectornav(vector: Vector, _: Path) -> None:
    raw, expect = raw_bytes(vector), vector["expect"]
    for output in ("ascii", "binary"):
        receiver = VectornavParser(output, 115200)
        rows = receiver.feed(raw, START_NS)
        if vector["checksum_ok"]:
            assert receiver.tally()[:3].tolist() == [1, 0, 0]
        else:
            assert (len(rows.values), receiver.tally()[:3].tolist()) == (0, [0, 1, len(raw)])
    if isinstance(expect.get("fields"), list):
        rows = VectornavParser("ascii", 115200).feed(raw, START_NS)
        in_si = rows.values[0] * np.array(Vectornav("imu0", VectornavConfig(port="x")).info().scale) * G_IN_SI
        assert in_si.tolist() == pytest.approx([float(field) for field in expect["fields"][6:]], abs=1e-9)
    elif "yaw" in expect:
        at = field_offsets(raw)[0, 3]
        wanted = [expect[name] for name in ("yaw", "pitch", "roll")]
        assert np.frombuffer(raw[at : at + 12], "<f4").tolist() == pytest.approx(wanted, abs=1e-5)


def mavlink(vector: Vector, _: Path) -> None:
    every = pytest.importorskip("pymavlink.dialects.v20.all")
    raw, expect = raw_bytes(vector), vector["expect"]
    kind = every.mavlink_map[expect["msgid"]]
    scanner = VariableScanner(MavlinkFormat(dialect_for("RAW_IMU").messages))
    spans = scanner.feed(raw)
    assert (scanner.frames, scanner.bad_checksums, scanner.skipped_bytes) == (1, 0, 0)
    assert message_ids(spans.data, spans.starts).tolist() == [expect["msgid"]]
    table = payloads(spans, np.array([0]), kind.unpacker.size)
    fields = dict(zip(kind.ordered_fieldnames, kind.unpacker.unpack(table.tobytes()), strict=False))
    for name, value in expect.items():
        if name == "param_id":
            assert value.encode() in table.tobytes()
        elif name not in ("msgid", "note"):
            assert fields[name] == pytest.approx(value)
    if kind.msgname in ("RAW_IMU", "HIGHRES_IMU"):
        rows = MavlinkParser(dialect_for(kind.msgname), 57600).feed(raw, START_NS)
        scale = 1 if kind.msgname == "RAW_IMU" else 1e-5
        assert (rows.values[0, :3] * scale).tolist() == pytest.approx([expect[f"{a}acc"] for a in "xyz"])
        assert rows.ticks.tolist() == [expect["time_usec"]]
