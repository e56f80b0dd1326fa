"""Requests to the thread of a store, and their waiters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stores import HandWriter, TrickyStore

from aioscheduler._routing import asking as module
from aioscheduler._routing.asking import Asking
from aioscheduler.errors import StoreError


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_request_is_answered_or_raises() -> None:
    writer: Any = HandWriter()
    asking = Asking(TrickyStore(), writer)  # type: ignore[arg-type]
    answers = [asyncio.create_task(asking.ask(call)) for call in (lambda: 5, [].pop)]
    await turn()
    assert writer.work() == 2
    await asyncio.wait(answers)
    assert answers[0].result() == 5
    assert isinstance(answers[1].exception(), IndexError)
    await asking.settle()
    assert not writer.jobs
    writer.dead = StoreError("nobody writes")
    with pytest.raises(StoreError, match="nobody writes"):
        await asking.ask(lambda: 5)
    with pytest.raises(StoreError, match="nobody writes"):
        await asking.settle()


async def test_settle_waits_for_requests_whose_callers_are_gone() -> None:
    writer: Any = HandWriter()
    asking = Asking(TrickyStore(), writer)  # type: ignore[arg-type]
    done: list[int] = []
    answer = asyncio.create_task(asking.ask(lambda: done.append(1)))
    await turn()
    answer.cancel()
    settling = asyncio.create_task(asking.settle())
    await turn()
    assert answer.cancelled()
    assert not settling.done()
    writer.work()
    await settling
    assert done == [1]


async def test_a_file_is_closed_only_by_the_keeper_that_opened_it() -> None:
    store, writer = TrickyStore(), HandWriter()
    asking = Asking(store, writer)  # type: ignore[arg-type]
    asking.close(True)
    assert store.closed == []  # it may be another manager's
    opening = asyncio.create_task(asking.open())
    await turn()
    opening.cancel()
    await turn()
    writer.work()
    asking.close(False)
    assert store.closed == [False]  # though nobody was waiting for its opening


async def test_a_thread_that_hangs_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    writer: Any = HandWriter()
    asking = Asking(TrickyStore(), writer)  # type: ignore[arg-type]
    answer = asyncio.create_task(asking.ask(lambda: 5))
    await turn()
    await asking.settle()
    assert not answer.done()
    answer.cancel()
