"""Every record is sent once, in order, or counted as dropped, and the bounds are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._processes.process import workers_module

backlog_module = workers_module("backlog")

LARGEST = 400_000
# How many records of which size are added before a frame is taken; sizes near the bounds.
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 1200),
            st.sampled_from((0, 1, 100, 1100, 16 * 1024, 33_000, LARGEST)),
        ),
        st.just(None),  # a record that cannot be packed
    ),
    max_size=12,
)


@given(STEPS, st.lists(st.integers(0, 40), min_size=12, max_size=12))
def test_what_is_added_is_taken_in_order_or_counted(
    steps: list[tuple[int, int] | None], takes: list[int]
) -> None:
    backlog = backlog_module.Backlog()
    added: list[bytes] = []
    taken: list[bytes] = []
    lost = told = 0

    def take() -> None:
        nonlocal told
        records, dropped = backlog.take()
        assert len(records) <= backlog_module.FRAME_RECORDS
        assert len(records) <= 1 or sum(map(len, records)) <= backlog_module.FRAME_BYTES
        taken.extend(records)
        told += dropped

    for step, frames in zip(steps, takes, strict=False):
        if step is None:
            backlog.drop()
            lost += 1
        else:
            count, size = step
            for _ in range(count):
                record = b"%08d" % (len(added) + lost) + bytes(size)
                was_full = backlog.is_full
                before = len(backlog._records)
                backlog.add(record)
                if was_full:
                    lost += 1
                else:
                    added.append(record)
                assert len(backlog._records) == before + (not was_full)
                assert len(backlog._records) <= backlog_module.MOST_RECORDS
                assert backlog.size < backlog_module.MOST_BYTES + LARGEST
        for _ in range(frames):
            take()
    while backlog:
        take()
    assert taken == added
    assert told == lost
    assert (len(backlog._records), backlog.size, backlog.take()) == (0, 0, ([], 0))


@pytest.mark.parametrize(("size", "most"), [(10, "MOST_RECORDS"), (1 << 18, None)])
def test_a_full_one_takes_again_what_it_has_room_for(size: int, most: str | None) -> None:
    backlog = backlog_module.Backlog()
    while not backlog.is_full:
        backlog.add(bytes(size))
    assert len(backlog._records) == (getattr(backlog_module, most) if most else 4)
    backlog.add(b"one too many")
    records, dropped = backlog.take()
    assert (len(records), dropped) == (backlog_module.FRAME_RECORDS if most else 1, 1)
    assert not backlog.is_full
    backlog.add(b"")
    assert len(backlog.take()[0]) == (backlog_module.FRAME_RECORDS if most else 1)


def test_dropped_records_are_reported_though_none_waits() -> None:
    backlog = backlog_module.Backlog()
    assert not backlog
    backlog.drop()
    assert backlog
    assert backlog.take() == ([], 1)
    assert not backlog


def test_a_record_logged_during_an_add_is_counted_too() -> None:
    backlog = backlog_module.Backlog()

    class Record(bytes):
        """Logs when its length is read, like an object freed at that point."""

        added = False

        def __len__(self) -> int:
            if not self.added:
                self.added = True
                backlog.add(bytes(100))
            return super().__len__()

    backlog.add(Record(10))
    assert backlog.size == 110
    assert [len(record) for record in backlog.take()[0]] == [100, 10]
    assert backlog.size == 0
