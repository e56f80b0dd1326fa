"""Listing the tasks of a link; that links use it is tested with them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from aioscheduler._routing.book import Book
from aioscheduler._routing.listing import list_book, list_engines
from aioscheduler._routing.local import LocalLink
from aioscheduler._routing.placement import Placement
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.order import Order
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler.inspection import TaskInfo, Wanted
from aioscheduler.task import State, TaskRef

SECOND = 10**9


def ref(scheduler: int, number: int) -> TaskRef:
    return TaskRef("m", 4, scheduler, number)


def numbers(pages: Iterable[list[TaskInfo]]) -> list[int]:
    return [info.ref.number for info in chain.from_iterable(pages)]


def test_only_wanted_tasks_of_a_book_are_listed() -> None:
    book = Book(2, timed=True, log=DefinitionLog())
    for due in (7, 8, 9):
        book.outbox.add(due % 2, due * SECOND, 0, due)
    book.outbox.pack()
    book.announced(1, [0])
    ids = {0: "a:1", 1: "b:1"}

    def listed(wanted: Wanted) -> list[TaskInfo]:
        pages = list_book(book, wanted, ids, lambda n, _: f"name {n}", ref, timed=True)
        return list(chain.from_iterable(pages))

    first, second, third = listed(Wanted(None, None, None))
    assert (first.state, first.due, first.id, first.scheduler) == (State.RUNNING, None, "a:1", 1)
    assert second.due is not None
    assert (second.due.timestamp(), second.ref.worker, third.id) == (8, 4, None)
    assert [i.ref.number for i in listed(Wanted("name 2", None, None))] == [2]
    assert [i.ref.number for i in listed(Wanted(None, "b:", None))] == [1]
    assert [i.ref.number for i in listed(Wanted(None, None, State.PENDING))] == [1, 2]


async def work() -> None: ...


def test_only_wanted_tasks_of_engines_are_listed() -> None:
    counter = Placement([1], by_worker=True)
    link = LocalLink(*(Order.TIMED, 1, counter, LoopThread("manager"), lambda _: 0, lambda: 0, "m"))
    for due in (7, 8):
        link.schedule(0, due * SECOND, due, link.shipper.take(work()))

    def listed(wanted: Wanted) -> list[int]:
        return numbers(list_engines(link.engines, wanted, {1: "b"}, ref))

    assert listed(Wanted(None, None, None)) == [0, 1]
    assert listed(Wanted(None, "b", None)) == [1]
    assert listed(Wanted(None, None, State.RUNNING)) == []
    assert listed(Wanted("another", None, None)) == []
    link.kill(RuntimeError())
