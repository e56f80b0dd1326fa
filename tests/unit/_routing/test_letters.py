"""Dead letters, read page by page and dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import stores

from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Batch, Function, Letter, Reason, Row, Unwritable
from aioscheduler._routing import letters as module
from aioscheduler._routing.letters import Letters
from aioscheduler.errors import StoreError


class Rig(stores.Rig):
    """A store with dead letters, written when they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.start()
        self.reads = 0
        self.letters = Letters(self.store, self.group, self.commits, self.call, self.stored)

    async def call(self, read: Callable[[], list[Letter]]) -> list[Letter]:
        self.reads += 1
        return read()

    async def stored(self, kept: None) -> None:
        for _ in range(3):
            self.turn()

    def bury(self, *reasons: Reason) -> list[int]:
        self.group.define(Function(1, "f", "m:f", once=False))
        rows = []
        for reason in reasons:
            kept = Kept.of(row := Row(self.group.new_row(), 5, 1, b""))
            self.group.put(kept, row)
            self.group.bury(kept, reason, "why", 7)
            rows.append(row.row)
        self.commits.soon()
        return rows

    async def read(self, reason: Reason | None = None, limit: int | None = None) -> list[int]:
        return [letter.row async for letter in self.letters.read(reason, limit)]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(module, "_PAGE", 3)
    return Rig()


async def test_they_are_read_page_by_page_and_not_further_than_is_asked(rig: Rig) -> None:
    rows = rig.bury(*[Reason.FAILED, Reason.LOST] * 5)
    assert await rig.read() == rows
    assert rig.reads == 5  # the last page is empty
    assert await rig.read(Reason.LOST) == rows[1::2]
    assert await rig.read(Reason.UNKNOWN) == []
    rig.reads = 0
    assert await rig.read(None, 3) == rows[:3]
    assert await rig.read(Reason.LOST, 1) == rows[1:2]
    assert await rig.read(None, 0) == []
    assert rig.reads == 2
    assert await rig.read(None, 100) == rows


async def test_one_is_found_by_its_row(rig: Rig) -> None:
    first, second = rig.bury(Reason.FAILED, Reason.LOST)
    found: Any = await rig.letters.find(second)
    assert (found.row, found.reason, found.name) == (second, Reason.LOST, "f")
    assert await rig.letters.find(second + 1) is None
    assert await rig.letters.find(first - 1) is None
    for none in (-1, -(1 << 63), 1 << 63, 1 << 70):
        assert await rig.letters.find(none) is None
    assert await rig.letters.find((1 << 63) - 1) is None
    assert await rig.letters.find(0) is None


async def test_what_is_dropped_is_passed_over_before_the_file_knows(rig: Rig) -> None:
    rows = rig.bury(*[Reason.FAILED] * 4)
    reading = rig.letters.read(None, None)
    assert (await anext(reading)).row == rows[0]
    rig.letters.drop(rows[1])  # on a page that was read
    rig.letters.drop(rows[3])
    assert [letter.row async for letter in reading] == [rows[2]]
    assert await rig.letters.find(rows[1]) is None
    assert await rig.read() == [rows[0], rows[2]]
    assert [letter.row for letter in rig.store.dead()] == [rows[0], rows[2]]
    assert rig.commits.letters == 2


async def test_unreadable_letters_are_reported(rig: Rig) -> None:
    async def call(read: Callable[[], list[Letter]]) -> list[Letter]:
        raise StoreError("a disk is gone")

    letters = Letters(rig.store, rig.group, rig.commits, call, rig.stored)
    with pytest.raises(StoreError, match="a disk is gone"):
        await letters.find(1)
    with pytest.raises(StoreError, match="a disk is gone"):
        await anext(letters.read(None, None))


async def test_what_is_dropped_is_not_remembered_for_ever(rig: Rig) -> None:
    rows = rig.bury(*[Reason.FAILED] * 10)
    reading = rig.letters.read(None, None)
    await anext(reading)  # it holds a page, and may yield more of it at any time
    for row in rows[:5]:
        rig.letters.drop(row)
        rig.turn()
    assert len(rig.letters._dropped) == 5
    assert [letter.row async for letter in reading] == rows[5:]
    for row in rows[5:]:
        rig.letters.drop(row)
        rig.turn()
    assert len(rig.letters._dropped) == 1
    assert await rig.read() == []


async def test_a_dropped_letter_no_longer_counts_before_the_file_knows(rig: Rig) -> None:
    rows = rig.bury(*[Reason.FAILED] * 4)
    await rig.stored(None)
    assert rig.commits.letters == 4
    rig.letters.drop(rows[0])
    rig.letters.drop(rows[1])
    assert rig.commits.figures()["dead_letters"] == 2
    rig.store.fails = stores.FULL
    rig.turn()
    assert rig.commits.letters == 2
    rig.store.fails = None
    rig.loop.pass_(1)
    rig.turn()
    assert (rig.commits.letters, len(rig.store.dead())) == (2, 2)


async def test_what_cannot_be_dropped_counts_again(rig: Rig) -> None:
    rows = rig.bury(*[Reason.FAILED] * 4)
    await rig.stored(None)
    commit = rig.store.commit

    def refuse(batch: Batch) -> None:
        if rows[0] in batch.discards:
            raise Unwritable("no")
        commit(batch)

    rig.store.commit = refuse  # type: ignore[method-assign]
    rig.letters.drop(rows[0])
    rig.letters.drop(rows[1])
    assert rig.commits.letters == 2
    rig.turn()
    assert (rig.commits.letters, len(rig.store.dead())) == (3, 3)
