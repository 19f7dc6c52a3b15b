"""I/O errors under a running outbox: calls of the C library that fail on demand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/types.h>
/* While the file $FAIL exists, the calls named in it fail on files of the outbox: with EIO, or EROFS if it says so. */
static int fails(int fd, const char *call) {
    static __thread int inside;
    const char *control = getenv("FAIL");
    char link[64], name[512], calls[64] = "";
    if (inside || !control) return 0;
    inside = 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, sizeof name - 1);
    FILE *file = n > 0 ? fopen(control, "r") : NULL;
    if (file) { if (!fgets(calls, sizeof calls, file)) calls[0] = 0; fclose(file); }
    inside = 0;
    if (n <= 0 || !file) return 0;
    name[n] = 0;
    if (!strstr(name, "o.db") || strstr(name, ".new") || !strstr(calls, call)) return 0;
    errno = strstr(calls, "readonly") ? EROFS : EIO;
    return 1;
}
#define REAL(type, name, ...) ((type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    return fails(fd, "write") ? -1 : REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)(fd, b, n, o); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) {
    return fails(fd, "write") ? -1 : REAL(ssize_t, pwrite, int, const void *, size_t, off_t)(fd, b, n, o); }
ssize_t pread64(int fd, void *b, size_t n, off64_t o) {
    return fails(fd, "pread") ? -1 : REAL(ssize_t, pread64, int, void *, size_t, off64_t)(fd, b, n, o); }
ssize_t pread(int fd, void *b, size_t n, off_t o) {
    return fails(fd, "pread") ? -1 : REAL(ssize_t, pread, int, void *, size_t, off_t)(fd, b, n, o); }
int fsync(int fd) { return fails(fd, "sync") ? -1 : REAL(int, fsync, int)(fd); }
int fdatasync(int fd) { return fails(fd, "sync") ? -1 : REAL(int, fdatasync, int)(fd); }
"""

BEHIND_SHIM = """
import json, sys, threading
from pathlib import Path
from agent.outbox import Outbox
from agent.record import Priority
from agent.wire import decode

path, control = Path(sys.argv[1]), Path(sys.argv[2])
outbox = Outbox(path, boot="b1")
stop = threading.Event()
worker = threading.Thread(target=outbox.run, args=(stop, lambda: None))
worker.start()
pause = threading.Event()

def wait(what):
    for _ in range(6000):
        if what():
            return
        pause.wait(0.01)
    sys.exit("not in time")

def restart():
    # Opens the file with nothing of it in memory.
    global outbox, worker, stop
    stop.set()
    worker.join()
    outbox, stop = Outbox(path, boot="b1"), threading.Event()
    worker = threading.Thread(target=outbox.run, args=(stop, lambda: None))
    control.write_text("pread")
    worker.start()
    wait(lambda: outbox.trouble)
    assert not outbox.opened.is_set()
    control.write_text("")
    wait(outbox.opened.is_set)

number = 0
for calls in sys.argv[3:]:
    for phase in ("", calls, ""):
        control.write_text(phase)
        for _ in range(40):
            number += 1
            outbox.put("kw", {"n": number}, priority=Priority.ALARM)
            pause.wait(0.005)
        if phase:
            wait(lambda: outbox.trouble)
    wait(lambda: not outbox.unwritten and outbox.trouble is None)
restart()
found = {}
while not outbox.wait_drained(0.0):
    records = outbox.lease(100, 0.2)
    for record in records:
        found.update((row["seq"], row["n"]) for row in decode(record.payload).rows)
    outbox.settle(records)
stop.set()
worker.join()
counts = outbox.ledger()["b1", "kw"]
print(json.dumps({"put": number, "found": sorted(found.items()), "balanced": counts.balanced(),
    "pending": counts.pending, "delivered": counts.delivered}))
"""


FAULTS = ("sync", "write", "write sync", "write sync readonly")
"""While it runs; reading fails when the file is opened again, since what is open is in SQLite's memory."""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (folder / "shim.c").write_text(SHIM)
    build = ["gcc", "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"]
    made = subprocess.run(build, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"the shim cannot be built: {made.stderr}")
    return folder / "shim.so"


def test_io_errors_are_survived_and_nothing_is_lost(tmp_path: Path, shim: Path) -> None:
    control = tmp_path / "fail"
    done = subprocess.run(
        [sys.executable, "-c", BEHIND_SHIM, tmp_path / "o.db", control, *FAULTS],
        env={**os.environ, "LD_PRELOAD": str(shim), "FAIL": str(control)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["found"] == [[n, n] for n in range(1, told["put"] + 1)]
    assert (told["balanced"], told["pending"], told["delivered"]) == (True, 0, told["put"])
    assert "disk I/O error" in done.stderr
