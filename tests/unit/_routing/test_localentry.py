"""The entry of a task of this process: its work, its start, and its due time."""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar, copy_context
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate
from typing import Any

import pytest
from herewith import give

from aioscheduler._routing.localentry import (
    Attempts,
    Entry,
    Work,
    attempt_of,
    begin,
    close,
    context_of,
    move,
    name_of,
    start_of,
)
from aioscheduler.task import Task

word: ContextVar[str] = ContextVar("word", default="none")


def make_entry(work: Work, due: int = 7) -> Entry:
    home: Any = None
    return Task(home, 0, 0, due, "a name"), work, copy_context(), None, due, [1, "captured"]


async def test_a_task_without_retries_is_what_was_given() -> None:
    coro = give(1)
    entry = make_entry(coro)
    assert (name_of(entry), attempt_of(entry), start_of(entry)) == ("a name", 1, 7)
    assert begin(entry[1]) is coro
    close(entry)
    assert getcoroutinestate(coro) == CORO_CLOSED


async def test_each_attempt_has_a_coroutine_of_its_own() -> None:
    made: list[Awaitable[Any]] = []

    def make() -> Awaitable[Any]:
        made.append(give(len(made)))
        return made[-1]

    first = give("first")
    attempts = Attempts(make, first)
    assert begin(attempts) is first
    assert not made
    again = [begin(attempts), begin(attempts)]
    assert again == made
    assert [await each for each in (first, *again)] == ["first", 0, 1]


def test_what_no_attempt_has_begun_is_closed() -> None:
    coro = give(1)
    close(make_entry(Attempts(partial(give, 1), coro)))
    assert getcoroutinestate(coro) == CORO_CLOSED
    close(make_entry(Attempts(partial(give, 1))))  # no coroutine between two attempts


def test_a_line_is_kept_of_a_failure() -> None:
    attempts = Attempts(partial(give, 1))
    entry = make_entry(attempts)
    assert (attempts.failure, attempt_of(entry)) == ("", 1)
    attempts.failed("work: ValueError: no such room")
    assert (attempts.failure, attempt_of(entry)) == ("work: ValueError: no such room", 2)


@pytest.mark.parametrize("start", [None, 5, 0])
def test_a_time_that_was_given_later_holds_for_any_attempt(start: int | None) -> None:
    attempts = Attempts(partial(give, 1))
    attempts.start = start
    entry = make_entry(attempts)
    assert start_of(entry) == (7 if start is None else start)
    moved = move(entry, 9)
    assert (start_of(moved), moved[4]) == (9, 9)
    assert moved[:4] == entry[:4]
    plain = give(1)
    moved = move(make_entry(plain), 9)
    assert (start_of(moved), moved[-1]) == (9, [1, "captured"])
    plain.close()


def test_no_attempt_sees_what_another_has_set() -> None:
    entry = make_entry(Attempts(partial(give, 1)))
    context_of(entry).run(word.set, "of the first")
    assert context_of(entry).run(word.get) == "none"
