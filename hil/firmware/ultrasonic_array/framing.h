/* Frames as drivers/lib/tick_frames.py reads them: COBS, CRC-16, a counter and a tick. Portable C, no hardware. */
#ifndef FRAMING_H
#define FRAMING_H

#include <stdint.h>

enum { KIND_ECHO_TIMES = 1, KIND_WAVEFORM = 2 };

enum { MAX_WORDS = 120 }; /* so that COBS needs only one extra byte */

/* Bytes on the wire for `words` words: header 8, words, CRC 2, COBS 1, and the zero that ends the frame. */
#define FRAME_BYTES(words) (8 + 2 * (words) + 2 + 1 + 1)

/* Writes one frame to `out`, which holds FRAME_BYTES(count) bytes; count <= MAX_WORDS. Returns the bytes written. */
uint8_t frame_build(uint8_t *out, uint8_t kind, uint8_t index, uint16_t counter, uint32_t tick_us, const uint16_t *words,
                    uint8_t count);

#endif
