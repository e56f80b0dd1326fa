"""The types of a store."""

from __future__ import annotations

import pytest

from aioscheduler import StoreError
from aioscheduler._durable.records import (
    BUCKET_SHIFT,
    Batch,
    Begun,
    Function,
    Row,
    StoreGone,
    Unwritable,
    order_of_id,
)
from aioscheduler._durable.sqlite import SQLiteStore


@pytest.mark.parametrize("due", [0, 1, (1 << BUCKET_SHIFT) - 1, 1 << BUCKET_SHIFT, 1 << 62])
def test_a_bucket_is_the_first_bits_of_the_due_time(due: int) -> None:
    row = Row(1, due, 2, b"")
    assert (row.bucket << BUCKET_SHIFT) <= due < (row.bucket + 1 << BUCKET_SHIFT)


def test_a_task_that_is_new_has_no_history() -> None:
    row = Row(1, 2, 3, b"4")
    assert (row.begun, row.attempt, row.failed, row.losses, row.given) == (Begun.NO, 1, 0, 0, None)


def test_to_users_a_store_that_is_gone_is_a_store_error() -> None:
    assert issubclass(StoreGone, StoreError)
    assert issubclass(Unwritable, StoreError)
    assert not issubclass(Unwritable, StoreGone)


def test_ids_are_read_in_order_of_their_places() -> None:
    ids = [
        "",
        "\x7f",
        "Z",
        "a",
        "ab",
        "\xe9",
        "\uffff",
        "\U0001f600",
        "\ud800",
        "a\udfff",
        "b\ud800",
    ]
    store = SQLiteStore(":memory:")
    store.open()
    puts = [Row(row, 5, 1, b"", id=id_) for row, id_ in enumerate(reversed(ids), 1)]
    store.commit(Batch([Function(1, "f", "m:f", False)], puts=puts, next_row=99))
    found = [row.id for row in store.scan_ids("", None, 99)]
    store.close(clean=True)
    assert found == sorted(ids, key=lambda id_: order_of_id(id_))
