/* Test of framing.c on the host: lines "kind index counter tick word word ..." in, frames in hex out. */
#include <stdio.h>
#include <stdlib.h>

#include "framing.h"

int main(void)
{
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        unsigned long numbers[4 + MAX_WORDS];
        unsigned count = 0;
        for (char *at = line, *end; count < 4 + MAX_WORDS; at = end) {
            numbers[count] = strtoul(at, &end, 10);
            if (end == at)
                break;
            count++;
        }
        if (count < 4)
            return 1;
        uint16_t words[MAX_WORDS];
        for (unsigned i = 4; i < count; i++)
            words[i - 4] = (uint16_t)numbers[i];
        uint8_t frame[FRAME_BYTES(MAX_WORDS)];
        uint8_t size = frame_build(frame, (uint8_t)numbers[0], (uint8_t)numbers[1], (uint16_t)numbers[2],
                                   (uint32_t)numbers[3], words, (uint8_t)(count - 4));
        for (uint8_t i = 0; i < size; i++)
            printf("%02x", frame[i]);
        printf("\n");
    }
    return 0;
}
