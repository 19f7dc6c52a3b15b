"""CRC-16 of serial protocols, by way of the C function of the standard library."""

import binascii

_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def crc16(data: bytes) -> int:
    """CCITT polynomial 0x1021, initial value 0 (XMODEM; VectorNav). Over data and its big-endian CRC it is 0."""
    return binascii.crc_hqx(data, 0)


def crc16_reflected(data: bytes) -> int:
    """The same polynomial bit-reversed, initial value 0xFFFF, no final XOR (MCRF4XX; MAVLink)."""
    mirrored = binascii.crc_hqx(data.translate(_MIRRORED), 0xFFFF)
    return _MIRRORED[mirrored & 0xFF] << 8 | _MIRRORED[mirrored >> 8]
