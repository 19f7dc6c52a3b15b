/* Runs the real firmware in simavr: its UART becomes a pseudo-terminal, each pair of pins of pins.h a virtual HC-SR04.
 *
 * Usage: simavr_rig FIRMWARE.elf LINK ECHO_US... (one echo time per transducer, 0 for none). LINK becomes a symlink to
 * the terminal. Runs at the pace of the real chip where the host can, until its standard input ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_ioport.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

#include "pins.h"

#define CLOCK_HZ 16000000UL
#define BURST_US 450       /* from the trigger to the rise of the echo pin */
#define NO_ECHO_US 38000   /* so long a real one holds the pin when it hears nothing */
#define CYCLES_PER_CHECK (CLOCK_HZ / 1000)

struct hc_sr04 {
    avr_t *avr;
    avr_irq_t *echo;
    unsigned width_us;
    int triggered;
};

static int terminal;

static avr_cycle_count_t echo_falls(avr_t *avr, avr_cycle_count_t when, void *param)
{
    (void)avr, (void)when;
    avr_raise_irq(((struct hc_sr04 *)param)->echo, 0);
    return 0;
}

static avr_cycle_count_t echo_rises(avr_t *avr, avr_cycle_count_t when, void *param)
{
    struct hc_sr04 *sensor = param;
    (void)when;
    avr_raise_irq(sensor->echo, 1);
    avr_cycle_timer_register_usec(avr, sensor->width_us ? sensor->width_us : NO_ECHO_US, echo_falls, sensor);
    return 0;
}

static void trigger_changed(avr_irq_t *irq, uint32_t value, void *param)
{
    struct hc_sr04 *sensor = param;
    (void)irq;
    if (sensor->triggered && !value && !sensor->echo->value)
        avr_cycle_timer_register_usec(sensor->avr, BURST_US, echo_rises, sensor);
    sensor->triggered = value != 0;
}

static void byte_sent(avr_irq_t *irq, uint32_t value, void *param)
{
    uint8_t byte = (uint8_t)value;
    (void)irq, (void)param;
    /* A terminal that nobody reads is full; what does not fit is lost, as on a wire. */
    if (write(terminal, &byte, 1) < 0 && errno != EAGAIN)
        exit(1);
}

static void open_terminal(const char *link)
{
    struct termios raw;
    int reader;
    terminal = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal) || symlink(ptsname(terminal), link)) {
        perror("pseudo-terminal");
        exit(1);
    }
    /* Our own descriptor of the reader's side keeps the terminal raw and alive when a reader closes it. */
    reader = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    tcgetattr(reader, &raw);
    cfmakeraw(&raw);
    tcsetattr(reader, TCSANOW, &raw);
}

static int stopped(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, &byte, 1) <= 0;
}

static void keep_pace(avr_t *avr, const struct timespec *start)
{
    struct timespec due = *start;
    uint64_t ns = avr->cycle * 125 / 2; /* 62.5 ns each at 16 MHz */
    due.tv_sec += (time_t)(ns / 1000000000ULL);
    due.tv_nsec += (long)(ns % 1000000000ULL);
    if (due.tv_nsec >= 1000000000L) {
        due.tv_nsec -= 1000000000L;
        due.tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

int main(int argc, char **argv)
{
    static struct hc_sr04 sensors[TRANSDUCER_COUNT];
    elf_firmware_t firmware = {0};
    uint32_t flags = 0;
    struct timespec start;
    if (argc != 3 + TRANSDUCER_COUNT || elf_read_firmware(argv[1], &firmware)) {
        fprintf(stderr, "usage: %s FIRMWARE.elf LINK ECHO_US... (%d of them)\n", argv[0], TRANSDUCER_COUNT);
        return 2;
    }
    avr_t *avr = avr_make_mcu_by_name("atmega328p");
    avr_init(avr);
    avr_load_firmware(avr, &firmware);
    avr->frequency = CLOCK_HZ;
    open_terminal(argv[2]);

    avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
    flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POLL_SLEEP);
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), byte_sent, NULL);

    struct hc_sr04 *sensor = sensors;
#define CONNECT(trigger_port, trigger_pin, echo_port, echo_pin)                                              \
    sensor->avr = avr;                                                                                       \
    sensor->width_us = (unsigned)atoi(argv[3 + (sensor - sensors)]);                                         \
    sensor->echo = avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(#echo_port[0]), echo_pin);                     \
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(#trigger_port[0]), trigger_pin),      \
                            trigger_changed, sensor++);
    TRANSDUCERS(CONNECT)

    clock_gettime(CLOCK_MONOTONIC, &start);
    for (avr_cycle_count_t check = 0; !stopped(); check += CYCLES_PER_CHECK) {
        while (avr->cycle < check) {
            int state = avr_run(avr);
            if (state == cpu_Done || state == cpu_Crashed)
                return 1;
        }
        keep_pace(avr, &start);
    }
    unlink(argv[2]);
    return 0;
}
