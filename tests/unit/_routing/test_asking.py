"""What the thread of a store is asked for, and who waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stores import HandWriter

from aioscheduler._routing.asking import Asking
from aioscheduler.errors import StoreError


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_asks_is_answered_or_told_why_not() -> None:
    writer: Any = HandWriter()
    asking = Asking(writer)
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


async def test_what_was_asked_is_waited_for_though_who_asked_is_gone() -> None:
    writer: Any = HandWriter()
    asking = Asking(writer)
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
