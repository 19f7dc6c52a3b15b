"""A store of version 1 that is brought up to date by a hub which is killed on the way."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from agent.hub.store import HubStore
from tests.agent.test_hub_store import KEY, VERSION_1, batch

KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from agent.hub.store import HubStore

left = 0

def count(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", count)
event.listen(Engine, "commit", count)
for number in range(1, 1000):
    left = number
    child = os.fork()
    if not child:
        HubStore.open(Path(sys.argv[1])).close()
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(number)
        break
"""


def test_a_hub_killed_at_any_moment_of_the_change_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        old.execute("INSERT INTO streams VALUES ('d1', 'b1', 'kw', 5, 5, 0, 2, 10, 20)")
        for number, (seq0, count) in enumerate(((1, 3), (4, 2))):
            values = (*KEY, seq0, seq0 + count - 1, 11 + number, batch(seq0, count))
            row = "INSERT INTO batches (device, boot, stream, seq0, seq1, received_us, payload) VALUES (?,?,?,?,?,?,?)"
            old.execute(row, values)
        old.commit()
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert int(ended.stdout) > 20, "as many times it was killed, each time one statement later"
    with closing(HubStore.open(path)) as store:
        (account,) = store.ledger()
        assert (account.upto, account.stored, account.duplicates, account.problem) == (5, 5, 2, None)
        assert [row["n"] for row in store.results("d1", "kw")] == [1, 2, 3, 4, 5]
