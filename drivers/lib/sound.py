"""What int16 sound means, for every driver that gives it."""

from drivers.packet import SensorInfo


def sound_info(rate_hz: float, channels: int) -> SensorInfo:
    """int16 sound: full scale = 1."""
    names = ("mono",) if channels == 1 else tuple(f"ch{i}" for i in range(channels))
    return SensorInfo("audio", names, ("FS",) * channels, (1 / 32768,) * channels, rate_hz)
