/* N transducers of the HC-SR04 kind: pings them in groups, times the echoes, sends a frame per cycle of the array.
 *
 * The transducers of a group fire together; neighbours never do, since each would hear the other. A cycle begins every
 * PERIOD_US exactly, by the same clock that is sent as the tick.
 */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/atomic.h>
#include <util/delay.h>

#include "framing.h"
#include "pins.h"

#ifndef PERIOD_US
#define PERIOD_US 50000UL
#endif
#ifndef GROUPS
#define GROUPS 2
#endif
#define MAX_ECHO_US 23300U /* 4 m; a transducer that hears nothing holds its pulse for longer */
#define SLOT_US 24000U     /* the pulse begins about 0.5 ms after the trigger */
#define TRIGGER_US 10
#define BAUD_RATE 115200UL
#define COUNTS_PER_US 2 /* timer 1 at F_CPU / 8 */

_Static_assert(F_CPU == 16000000UL, "timer 1 is set up for 16 MHz");
_Static_assert((uint8_t)TRANSDUCER_COUNT <= MAX_WORDS, "too many transducers for a frame");
#define FRAME_US (FRAME_BYTES((unsigned long)TRANSDUCER_COUNT) * 10000000UL / BAUD_RATE + 200) /* and its CRC */
_Static_assert(GROUPS * (unsigned long)SLOT_US + FRAME_US <= PERIOD_US,
               "the groups and the frame do not fit the period: make DEFINES=-DPERIOD_US=...");
_Static_assert((unsigned long)SLOT_US * COUNTS_PER_US < 65536UL, "a slot must be shorter than one turn of timer 1");

struct transducer {
    volatile uint8_t *trigger_direction, *trigger, *echo;
    uint8_t trigger_bit, echo_bit;
};

#define ENTRY(trigger_port, trigger_pin, echo_port, echo_pin) \
    {&DDR##trigger_port, &PORT##trigger_port, &PIN##echo_port, 1 << (trigger_pin), 1 << (echo_pin)},
static const struct transducer transducers[] = {TRANSDUCERS(ENTRY)};

static volatile uint32_t timer_turns;

ISR(TIMER1_OVF_vect)
{
    timer_turns++;
}

/* Microseconds since the start, modulo 2^32. */
static uint32_t tick_us(void)
{
    uint16_t count;
    uint32_t turns;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        count = TCNT1;
        turns = timer_turns;
        if ((TIFR1 & 1 << TOV1) && count < 0x8000)
            turns++;
    }
    return turns * (65536UL / COUNTS_PER_US) + count / COUNTS_PER_US;
}

static void set_up(void)
{
    for (uint8_t i = 0; i < TRANSDUCER_COUNT; i++)
        *transducers[i].trigger_direction |= transducers[i].trigger_bit;
    TCCR1B = 1 << CS11;
    TIMSK1 = 1 << TOIE1;
    UCSR0A = 1 << U2X0;
    UBRR0 = (F_CPU + BAUD_RATE * 4) / (BAUD_RATE * 8) - 1;
    UCSR0B = 1 << TXEN0;
    sei();
}

/* Echo times in us of transducers `group`, `group` + GROUPS, ...; 0 where no echo ended in time. Takes SLOT_US. */
static void ping(uint8_t group, uint16_t *echo_us)
{
    uint16_t rose[TRANSDUCER_COUNT];
    enum { WAITING, RISEN, DONE } state[TRANSDUCER_COUNT];
    for (uint8_t i = group; i < TRANSDUCER_COUNT; i += GROUPS) {
        echo_us[i] = 0;
        /* Still high from the last ping: it heard nothing then, and does not take a trigger now. */
        state[i] = *transducers[i].echo & transducers[i].echo_bit ? DONE : WAITING;
        *transducers[i].trigger |= transducers[i].trigger_bit;
    }
    uint16_t start = TCNT1;
    _delay_us(TRIGGER_US);
    for (uint8_t i = group; i < TRANSDUCER_COUNT; i += GROUPS)
        *transducers[i].trigger &= (uint8_t)~transducers[i].trigger_bit;

    uint16_t now;
    while ((uint16_t)((now = TCNT1) - start) < SLOT_US * COUNTS_PER_US) {
        for (uint8_t i = group; i < TRANSDUCER_COUNT; i += GROUPS) {
            uint8_t high = *transducers[i].echo & transducers[i].echo_bit;
            if (state[i] == WAITING && high) {
                rose[i] = now;
                state[i] = RISEN;
            } else if (state[i] == RISEN && !high) {
                uint16_t width_us = (uint16_t)(now - rose[i]) / COUNTS_PER_US;
                echo_us[i] = width_us <= MAX_ECHO_US ? width_us : 0;
                state[i] = DONE;
            }
        }
    }
}

static void send(const uint8_t *data, uint8_t size)
{
    while (size--) {
        loop_until_bit_is_set(UCSR0A, UDRE0);
        UDR0 = *data++;
    }
}

int main(void)
{
    static uint16_t echo_us[TRANSDUCER_COUNT];
    static uint8_t frame[FRAME_BYTES(TRANSDUCER_COUNT)];
    uint16_t counter = 0;
    set_up();
    uint32_t begin = tick_us();
    for (;;) {
        while ((int32_t)(tick_us() - begin) < 0)
            ;
        uint32_t tick = tick_us();
        for (uint8_t group = 0; group < GROUPS; group++)
            ping(group, echo_us);
        send(frame, frame_build(frame, KIND_ECHO_TIMES, 0, counter++, tick, echo_us, TRANSDUCER_COUNT));
        begin += PERIOD_US;
    }
}
