"""What the hub makes of a device's own ledger."""

from agent.hub.books import MAX_STREAMS, Difference, disagreement, pending_elsewhere, told_by
from agent.wire import MAX_SEQ


def test_ledgers_are_found_among_the_metrics() -> None:
    metrics = {
        "up_s": 3.5,
        "ledger_kw_produced": 7,
        "ledger_kw_pending": 2.0,
        "ledger_a_b_delivered": 4,
        "ledger_kw_else": 1,
        "ledger_produced": 1,
        "ledger_Bad Name_produced": 1,
        "ledger_kw_evicted": float("inf"),
        "ledger_kw_refused": True,
        "ledger_kw_delivered": "5",
        "ledger_x_produced": -1,
        "ledger_y_produced": MAX_SEQ + 1,
    }
    assert told_by(metrics) == {"kw": {"produced": 7, "pending": 2}, "a_b": {"delivered": 4}}


def test_no_device_can_name_more_streams_than_are_looked_at() -> None:
    metrics = {f"ledger_s{number}_{what}": 1 for what in ("produced", "pending") for number in range(2 * MAX_STREAMS)}
    ledgers = told_by(metrics)
    assert len(ledgers) == MAX_STREAMS
    assert all(told == {"produced": 1, "pending": 1} for told in ledgers.values())


def test_a_device_holds_results_of_earlier_boots_unless_its_numbers_say_otherwise() -> None:
    ledgers = {"kw": {"pending": 2}, "imu": {"pending": 3}}
    assert not pending_elsewhere({"outbox_rows": 5}, ledgers)
    assert pending_elsewhere({"outbox_rows": 6}, ledgers)
    assert pending_elsewhere({}, ledgers)
    assert pending_elsewhere({"outbox_rows": "5"}, ledgers)
    assert pending_elsewhere({"outbox_rows": float("nan")}, ledgers)
    assert pending_elsewhere({"outbox_rows": 10**400}, ledgers), "no float holds it"


def test_books_disagree_only_if_they_do() -> None:
    fair = {"produced": 10, "delivered": 4, "pending": 3, "evicted": 2, "refused": 1}
    assert disagreement(None, 0) is None
    assert disagreement(fair, 4) is None
    assert disagreement(fair, 5) is None, "stored, and the acknowledgement is on its way"
    assert disagreement(fair, 3) == Difference("the device delivered 4, stored are 3", 1)
    assert disagreement({**fair, "produced": 7}, 9) == Difference("the device produced 7 and accounts for 10", 3)
