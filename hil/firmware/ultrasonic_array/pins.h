/* Where the transducers are: X(trigger port, trigger bit, echo port, echo bit), in the order of the columns.
 *
 * This is the square of four on an Arduino Uno: triggers on D2 to D5, echoes on A0 to A3. An Uno has pins for eight or
 * nine pairs; a ring of 24 is the same table, 24 lines long, for an ATmega2560, and its frames need a longer cycle:
 * make MCU=atmega2560 DEFINES=-DPERIOD_US=60000UL, and rate_hz = 16.67 in the driver.
 */
#ifndef PINS_H
#define PINS_H

#define TRANSDUCERS(X) \
    X(D, 2, C, 0)      \
    X(D, 3, C, 1)      \
    X(D, 4, C, 2)      \
    X(D, 5, C, 3)

#define COUNT_ONE(...) +1
enum { TRANSDUCER_COUNT = TRANSDUCERS(COUNT_ONE) };

#endif
