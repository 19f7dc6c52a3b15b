"""Several sensors' mailboxes with one reader."""

from threading import Thread

import numpy as np

from agent.mailbox import CAPACITY, Inbox
from drivers.packet import Packet


def packet(seq: int) -> Packet:
    return Packet("s", seq, seq, 1, np.zeros((4, 1), np.int16))


def test_what_arrived_first_comes_first() -> None:
    inbox = Inbox(2)
    first, second = inbox.mailboxes
    second.put(packet(0), 10)
    first.put(packet(1), 20)
    second.put(packet(2), 15)
    taken = [inbox.get(0) for _ in range(4)]
    assert [item and (item[0], item[1].seq, item[2]) for item in taken] == [(1, 0, 10), (1, 2, 15), (0, 1, 20), None]


def test_who_floods_drops_of_its_own() -> None:
    inbox = Inbox(2)
    quiet, loud = inbox.mailboxes
    quiet.put(packet(0), 0)
    for seq in range(CAPACITY + 50):
        loud.put(packet(seq), 1 + seq)
    assert (quiet.dropped_packets, loud.dropped_packets, loud.dropped_samples) == (0, 50, 200)
    item = inbox.get(0)
    assert item is not None
    assert item[0] == 0


def test_a_packet_of_either_wakes_the_reader() -> None:
    for index in range(2):
        inbox = Inbox(2)
        taken: list[int | None] = []

        def read(inbox: Inbox = inbox, taken: list[int | None] = taken) -> None:
            item = inbox.get(20.0)
            taken.append(item and item[0])

        reader = Thread(target=read)
        reader.start()
        inbox.mailboxes[index].put(packet(0), 0)
        reader.join(10)
        assert taken == [index]
