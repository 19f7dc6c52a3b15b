"""What is missing before a packet of samples."""

from drivers.packet import Packet


class Gap:
    """Follows one sensor's packets; one thread calls it."""

    def __init__(self, max_missing: int) -> None:
        """``max_missing``: so many samples may be made up, more may not."""
        self._max_missing = max_missing
        self.restart()

    def restart(self) -> None:
        """Nothing came before the next packet."""
        self._next_seq: int | None = None
        self._end_ns = 0

    def before(self, packet: Packet) -> int | None:
        """Samples missing before ``packet``; None where it begins a stretch of its own: the first packet, a gap too
        long to fill, or time that went another way than the samples."""
        first, follows = self._next_seq is None, packet.seq == self._next_seq
        missing = round((packet.t0_ns - self._end_ns) / packet.dt_ns)
        self._next_seq = packet.seq + 1
        self._end_ns = packet.t0_ns + packet.dt_ns * len(packet.data)
        if first:
            return None
        gap = packet.lost if follows else max(packet.lost, missing)
        return None if gap > self._max_missing or abs(missing - gap) > self._max_missing else gap
