from __future__ import annotations

import asyncio
import weakref
from contextvars import copy_context

import pytest
from turning import turns

from aioscheduler._scheduling.running import EAGER, Running


class Stand:
    def __init__(self) -> None:
        self.log: list[object] = []
        self.running: Running[str] = Running(lambda number, entry: self.log.append((number, entry)))

    def begin(self, number: int) -> None:
        self.running[number] = (asyncio.create_task(self.wait(number)), f"entry {number}")

    async def wait(self, number: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.log.append(number)
            self.running.end(number)


async def test_what_ends_in_its_first_step_is_not_kept() -> None:
    stand = Stand()

    async def end() -> None:
        stand.log.append("ended")
        stand.running.end(3)

    loop = asyncio.get_running_loop()
    stand.running.begin(3, "short", end(), loop, copy_context())
    stand.running.begin(4, "long", stand.wait(4), loop, copy_context())
    assert (stand.log, 3 in stand.running) == ((["ended"], False) if EAGER else ([], True))
    assert stand.running[4][1] == "long"
    await turns()
    stand.running.cancel(4)
    await turns()
    assert stand.log == ["ended", 4]


@pytest.mark.parametrize("turn", range(3))
async def test_an_entry_cancelled_by_others_before_its_first_step_is_reported(turn: int) -> None:
    stand = Stand()
    loop = asyncio.get_running_loop()
    for number in range(3):
        stand.running.begin(number, "entry", stand.wait(number), loop, copy_context())
        for _ in range(turn == number):
            await asyncio.sleep(0)
    for task, _ in list(stand.running.values()):
        task.cancel()
    await turns()
    told = [each[0] if isinstance(each, tuple) else each for each in stand.log]
    assert set(told) == {0, 1, 2}
    assert len(told) == 3


class Entry:
    """An entry whose deallocation can be noticed."""


async def test_a_failure_in_the_first_step_holds_no_entry() -> None:
    running: Running[Entry] = Running(lambda number, entry: None)
    failures: list[BaseException] = []

    async def fail() -> None:
        try:
            raise LookupError
        except LookupError as error:
            failures.append(error)

    entry = Entry()
    noticed = weakref.ref(entry)
    running.begin(1, entry, fail(), asyncio.get_running_loop(), copy_context())
    await turns()
    running.end(1)
    del entry
    assert noticed() is None
    assert len(failures) == 1


async def test_a_request_takes_precedence_over_giving_up() -> None:
    stand = Stand()
    running = stand.running
    for number in range(3):
        stand.begin(number)
    await turns()
    running.cancel(0)
    running.give_up(1)
    running.give_up(0)
    running.give_up(2)
    running.cancel(2)
    assert [running.was_asked(number) for number in range(3)] == [True, False, True]
    assert [running.was_given_up(number) for number in range(3)] == [False, True, False]
    await turns()
    assert stand.log == [0, 1, 2]


async def test_what_nobody_has_asked_for_was_interrupted() -> None:
    stand = Stand()
    running = stand.running
    for number in range(5):
        stand.begin(number)
    await turns()
    running.cancel(0)
    running.stop(0)
    running.give_up(1)
    running.stop(1)
    running.stop(2)
    running.stop(3)
    running.cancel(3)
    assert [running.was_interrupted(n) for n in range(5)] == [False, True, True, False, False]
    assert [running.was_asked(n) for n in range(5)] == [True, True, True, True, False]
    assert [running.was_cancelled(n) for n in range(5)] == [True, True, True, True, False]
    assert not any(map(running.was_given_up, range(5)))
    running.lose()
    assert [running.was_given_up(n) for n in range(5)] == [False] * 4 + [True]
    running.cancel(4)
    await turns()
    assert stand.log == [0, 1, 2, 3, 4]


async def test_all_may_be_lost_but_what_somebody_asked_for() -> None:
    stand = Stand()
    for number in range(2):
        stand.begin(number)
    await turns()
    stand.running.cancel(1)
    stand.running.lose()
    assert [stand.running.was_given_up(number) for number in range(2)] == [True, False]
    await turns()
    assert stand.log == [1]  # nothing was cancelled by that
    stand.running.cancel(0)
    await turns()


async def test_an_entry_cancelled_before_its_first_step_is_reported() -> None:
    stand = Stand()
    stand.begin(4)
    stand.begin(5)
    stand.running.give_up(4)
    stand.running.cancel(5)
    stand.running.end(5)  # its end was reported already
    await turns()
    assert stand.log == [(4, "entry 4")]


async def test_an_end_is_remembered_no_longer() -> None:
    stand = Stand()
    for number in range(2):
        stand.begin(number)
    stand.running.cancel(0)
    stand.running.give_up(1)
    for number in (0, 1, 7):
        stand.running.end(number)
        assert not stand.running.was_cancelled(number)
        assert not stand.running.was_given_up(number)
    assert dict(stand.running) == {}
    await turns()
    assert stand.log == []


async def test_what_could_not_begin_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()

    def no_memory(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(asyncio, "Task", no_memory)
    coro = stand.wait(3)
    with pytest.raises(MemoryError):
        stand.running.begin(3, "entry", coro, asyncio.get_running_loop(), copy_context())
    coro.close()
    assert stand.running.find(3) is None
    assert not stand.running.coming
