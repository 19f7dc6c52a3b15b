/* A wall clock of its own for one process: LD_PRELOAD this, and CLOCK_REALTIME says what a file tells it to say.
 *
 * Only CLOCK_REALTIME is moved. CLOCK_MONOTONIC and everything that waits by it stays as it is, which is what a real step
 * of the clock does, and what libfaketime does not. The file is mapped, so a test steps the clock of a running process.
 * Setting the clock (clock_settime, settimeofday) is not touched: it is the business of nobody here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define STA_UNSYNCHRONISED 0x40
#define NS_PER_S 1000000000LL

struct shim {
    _Atomic int64_t offset_ns;      /* what CLOCK_REALTIME is ahead of the machine's */
    _Atomic int64_t synchronised;   /* what adjtimex says: 0 or 1; 2 forbids the question (EPERM) */
    _Atomic int64_t max_error_us;
};

static const struct shim *shared;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("AXOND_CLOCK_SHIM");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof(struct shim), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED)
        shared = at;
}

static int is_wall(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (failed || !shared || !is_wall(clock))
        return failed;
    int64_t ns = at->tv_sec * NS_PER_S + at->tv_nsec + atomic_load(&shared->offset_ns);
    at->tv_sec = ns / NS_PER_S;
    at->tv_nsec = ns % NS_PER_S;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return (time_t)-1;
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state)
{
    if (!shared)
        return (int)syscall(SYS_adjtimex, state);
    if (atomic_load(&shared->synchronised) == 2 || state->modes) {
        errno = EPERM;
        return -1;
    }
    memset(state, 0, sizeof *state);
    int synchronised = atomic_load(&shared->synchronised) == 1;
    state->status = synchronised ? 0 : STA_UNSYNCHRONISED;
    state->maxerror = synchronised ? atomic_load(&shared->max_error_us) : 16000000;
    return synchronised ? TIME_OK : TIME_ERROR;
}
