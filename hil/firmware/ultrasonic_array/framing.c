#include "framing.h"

/* Polynomial 0x1021, initial value 0: over data and its big-endian CRC the result is 0. */
static uint16_t crc16(const uint8_t *data, uint8_t size)
{
    uint16_t crc = 0;
    while (size--) {
        crc ^= (uint16_t)*data++ << 8;
        for (uint8_t bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (uint16_t)(crc << 1) ^ 0x1021 : (uint16_t)(crc << 1);
    }
    return crc;
}

/* Replaces each zero of data[1 .. size] by the distance to the next one; data[0] gets the distance to the first. */
static void hide_zeros(uint8_t *data, uint8_t size)
{
    uint8_t code_at = 0;
    for (uint8_t at = 1; at <= size; at++) {
        if (data[at] == 0) {
            data[code_at] = at - code_at;
            code_at = at;
        }
    }
    data[code_at] = size + 1 - code_at;
}

uint8_t frame_build(uint8_t *out, uint8_t kind, uint8_t index, uint16_t counter, uint32_t tick_us, const uint16_t *words,
                    uint8_t count)
{
    uint8_t size = 1; /* byte 0 is for COBS */
    out[size++] = kind;
    out[size++] = index;
    out[size++] = counter & 0xFF;
    out[size++] = counter >> 8;
    for (uint8_t byte = 0; byte < 4; byte++)
        out[size++] = (uint8_t)(tick_us >> (8 * byte));
    for (uint8_t word = 0; word < count; word++) {
        out[size++] = words[word] & 0xFF;
        out[size++] = words[word] >> 8;
    }
    uint16_t crc = crc16(out + 1, size - 1);
    out[size++] = crc >> 8;
    out[size++] = crc & 0xFF;
    hide_zeros(out, size - 1);
    out[size++] = 0;
    return size;
}
