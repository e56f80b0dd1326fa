"""The values of `context=`: who sees them, with workers, without, and on a fake clock."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any

import propagated
import pytest
from propagated import CONTEXT, request_id, set_precision, unlisted
from retried import steady

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    NotShippable,
    QueuedScheduler,
    TimedScheduler,
)
from aioscheduler.testing import FakeClock

CLASSES = (TimedScheduler, QueuedScheduler, LifoQueuedScheduler)
Make = Callable[..., Any]


@pytest.fixture(params=["here", "paired", "workers"])
def make(request: pytest.FixtureRequest) -> Make:
    """Make managers of a kind; a fake clock moves on until they are closed."""

    @asynccontextmanager
    async def paired(*args: Any, **kwargs: Any) -> AsyncIterator[Manager]:
        clock = FakeClock()
        closed = False

        async def advance() -> None:
            while not closed:
                await clock.advance(0.1)
                await asyncio.sleep(0.001)

        async with clock.manager(*args, workers=1, **kwargs) as manager:
            advancing = asyncio.create_task(advance())
            try:
                yield manager
            finally:
                closed = True
                await advancing

    def made(*args: Any, context: Any = CONTEXT, **kwargs: Any) -> Any:
        if request.param == "paired":
            return paired(*args, context=context, **kwargs)
        workers = int(request.param == "workers")
        return Manager(*args, workers=workers, context=context, **kwargs)

    return made


def scheduled(word: Any, precision: int, call: Callable[[], Any]) -> Any:
    """Call a function in a context of its own with these values."""

    def inside() -> Any:
        request_id.set(word)
        set_precision(precision)
        return call()

    return copy_context().run(inside)


@pytest.mark.parametrize("cls", CLASSES)
async def test_each_task_has_the_values_of_its_schedule(make: Make, cls: Any) -> None:
    async with make(1, cls=cls) as manager:
        tasks = [
            scheduled(f"r{n}", n, lambda: manager.schedule(propagated.look_later()))
            for n in range(5, 9)
        ]
        named = scheduled("id", 4, lambda: manager.schedule(propagated.look_later(), id="one"))
        assert await asyncio.gather(*tasks, named) == [
            *((f"r{n}", n) for n in range(5, 9)),
            ("id", 4),
        ]
        assert await manager.schedule(propagated.look_later()) == ("-", 28)


@pytest.mark.parametrize("function", [propagated.look, propagated.look_later])
async def test_all_items_of_a_map_have_those_of_the_call(make: Make, function: Any) -> None:
    async with make(2) as manager:
        batch = scheduled("mapped", 5, lambda: manager.map(function, range(600)))
        plain = scheduled("other", 6, lambda: manager.starmap(function, [()]))
        assert set(await batch) == {("mapped", 5)}
        assert await plain == [("other", 6)]


async def test_tasks_that_run_at_the_same_time_do_not_see_each_others(make: Make) -> None:
    async with make(1) as manager:
        tasks = [
            scheduled(f"r{n}", n, lambda: manager.schedule(propagated.look_twice()))
            for n in range(5, 9)
        ]
        assert await asyncio.gather(*tasks) == [((f"r{n}", n),) * 2 for n in range(5, 9)]
        batch = scheduled("all", 4, lambda: manager.map(propagated.look_twice, range(3)))
        other = scheduled("one", 3, lambda: manager.schedule(propagated.look_twice()))
        assert await batch == [(("all", 4), ("all", 4))] * 3
        assert await other == (("one", 3), ("one", 3))


@pytest.mark.parametrize("cls", CLASSES)
async def test_each_attempt_begins_with_them(make: Make, cls: Any) -> None:
    async with make(1, cls=cls) as manager:
        coro = propagated.look_again(2)
        task = scheduled("r1", 5, lambda: manager.schedule(coro, retry=steady(0.01)))
        assert await task == (3, ("r1", 5))
        batch = scheduled(
            "r2", 6, lambda: manager.map(propagated.look_again, [1, 0], retry=steady(0.01))
        )
        assert await batch == [(2, ("r2", 6)), (1, ("r2", 6))]


async def test_what_a_task_schedules_has_those_of_the_task(make: Make) -> None:
    async with make(1) as manager:
        first = scheduled("r1", 5, lambda: manager.schedule(propagated.schedule_look("inside")))
        seen, ref = await first
        assert seen == ("r1", 5)
        assert await manager.task(ref) == ("inside", 7)


async def test_what_moves_keeps_them_and_what_replaces_has_its_own(make: Make) -> None:
    async with make(1) as manager:

        def later(word: str, precision: int, **options: Any) -> Any:
            hour = timedelta(hours=1)
            coro = propagated.look_later()
            return scheduled(word, precision, lambda: manager.schedule(coro, hour, **options))

        moved = later("r1", 5, id="moved")
        assert later("r2", 6, id="moved")._number == moved._number
        replaced = later("r3", 7, id="replaced")
        new = later("r4", 8, id="replaced", replace=True)
        soon = timedelta(milliseconds=1)
        assert scheduled("r5", 9, lambda: manager.reschedule(moved, soon))
        assert scheduled("r5", 9, lambda: manager.reschedule(new, soon))
        assert await moved == ("r1", 5)
        assert await new == ("r4", 8)
        assert replaced.cancelled()


async def test_threads_of_a_task_have_them(make: Make) -> None:
    async with make(1) as manager:
        task = scheduled("r1", 5, lambda: manager.schedule(propagated.look_in_thread()))
        assert await task == ("r1", 5)


async def test_another_thread_has_values_of_its_own(make: Make) -> None:
    async with make(1) as manager:

        def in_thread(word: str, **options: Any) -> Any:
            request_id.set(word)
            set_precision(6)
            future = manager.schedule_threadsafe(propagated.look_later(), **options)
            look_elsewhere = propagated.look()
            return future.result(20), look_elsewhere

        for options in ({}, {"id": "one"}, {"name": "named"}):
            assert await asyncio.to_thread(in_thread, "of a thread", **options) == (
                ("of a thread", 6),
                ("of a thread", 6),
            )


async def test_what_is_not_listed_stays_where_it_is(make: Make) -> None:
    unlisted.set("of the host")
    request_id.set("r1")
    async with make(1, context=[request_id]) as manager:
        listed, other = await manager.schedule(propagated.both())
        kind = type(manager._router.links[0]).__name__
    assert listed == "r1"
    assert other == ("of the host" if kind == "LocalLink" else "nothing")


async def test_what_cannot_be_captured_is_no_task(make: Make) -> None:
    def capture() -> None:
        raise LookupError("nobody is there")

    async with make(1, context=[(capture, print)]) as manager:
        calls: tuple[Callable[[], object], ...] = (
            lambda: manager.schedule(propagated.look_later()),
            lambda: manager.map(propagated.look, [1]),
        )
        for call in calls:
            with pytest.raises(LookupError, match="nobody is there") as caught:
                call()
            assert "was called to capture what goes with a task" in caught.value.__notes__[0]
        future = manager.schedule_threadsafe(propagated.look_later())
        with pytest.raises(LookupError, match="nobody"):
            await asyncio.wrap_future(future)
        await manager.join()


async def test_what_cannot_be_restored_fails_its_task_alone(make: Make) -> None:
    pair = request_id.get, propagated.refuse_to_restore
    async with make(1, context=[pair]) as manager:
        for function in (propagated.look_later, propagated.look):
            good, bad = (
                scheduled(word, 5, lambda f=function: manager.map(f, [1]))  # type: ignore[misc]
                for word in ("accepted", "refused")
            )
            with pytest.raises(LookupError, match="refused cannot be restored") as caught:
                await bad
            assert any("to restore what came with the task" in n for n in caught.value.__notes__)
            assert len(await good) == 1


async def test_a_value_that_cannot_travel_is_refused_at_the_call() -> None:
    async with Manager(1, workers=1, context=[request_id]) as manager:
        request_id.set(threading.Lock())
        with pytest.raises(NotShippable, match="the value of the context variable 'request_id'"):
            manager.schedule(propagated.look_later())
        with pytest.raises(NotShippable, match="the value of the context variable 'request_id'"):
            manager.map(propagated.look, [1])
        request_id.set("x" * 40_000)
        with pytest.raises(NotShippable, match="40,0.. bytes, and 32,768 at most"):
            manager.schedule(propagated.look_later())
        assert len(manager) == 0
        request_id.set("good")
        assert await manager.schedule(propagated.look_later()) == ("good", 28)


async def test_a_value_that_cannot_be_read_fails_its_task_alone() -> None:
    async with Manager(1, workers=1, context=[request_id]) as manager:
        request_id.set(propagated.Unreadable())
        bad = manager.schedule(propagated.look_later(), retry=steady(0.01))
        request_id.set("good")
        good = manager.schedule(propagated.look_later())
        with pytest.raises(LookupError, match="this cannot be read") as caught:
            await bad
        assert "were read" in caught.value.__notes__[0]
        assert await good == ("good", 28)
        assert manager.stats().retried == 0


async def test_what_runs_again_after_a_death_has_them(tmp_path: Path) -> None:
    async with Manager(1, workers=1, context=CONTEXT, on_worker_loss="rerun") as manager:
        note = str(tmp_path / "note")
        task = scheduled("r1", 5, lambda: manager.schedule(propagated.look_after_death(note)))
        waiting = scheduled("r2", 6, lambda: manager.schedule(propagated.look_later()))
        assert await task == (2, ("r1", 5))
        assert await waiting == ("r2", 6)


async def test_a_replacement_knows_what_is_listed_and_what_waits(tmp_path: Path) -> None:
    async with Manager(1, cls=QueuedScheduler, workers=1, context=CONTEXT) as manager:
        note = tmp_path / "note"
        blocks = manager.schedule(propagated.block(str(note)))
        word = Word("of a class of this file")
        waits = scheduled(word, 5, lambda: manager.schedule(propagated.look_later()))
        while not note.exists():
            await asyncio.sleep(0.01)
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert (await asyncio.gather(blocks, return_exceptions=True))[0] is not None
        assert await waits == (word, 5)


class Word(str):
    """It goes by value, as this file cannot be imported where tests are not on the path."""

    __slots__ = ()


async def test_the_initializer_sets_what_has_no_value_in_the_host() -> None:
    async with Manager(
        1, workers=1, initializer=request_id.set, initargs=("of the worker",), context=[request_id]
    ) as manager:
        assert await manager.schedule(propagated.both()) == ("of the worker", "nothing")
        request_id.set("of the host")
        assert await manager.schedule(propagated.both()) == ("of the host", "nothing")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_variable_of_no_module_is_refused_at_once(workers: int) -> None:
    local: ContextVar[str] = ContextVar("local")
    with pytest.raises(NotShippable, match="variable 'local' is not, or no longer, a global"):
        Manager(1, workers=workers, context=[local])


SCRIPT = """
import asyncio
from contextvars import ContextVar
from aioscheduler import Manager, current_manager

request_id = ContextVar("request_id")
language = ContextVar("language", default=["en"])  # is not listed

async def see(*more):
    return request_id.get("nothing"), language.get(), *more

async def hand_on():
    request_id.set(request_id.get() + ", handed on")
    return current_manager().schedule(see("inside"))

def capture():
    return request_id.get("captured nothing").upper()

def restore(value):
    request_id.set(value)

async def main():
    for context in ([request_id], [(capture, restore)]):
        async with Manager(1, workers=1, context=context) as manager:
            async def request(name):
                request_id.set(name)
                language.set(["de"])
                return await manager.schedule(see()), await manager.map(see, ["mapped"])
            print(await asyncio.gather(*map(request, ("ann", "bob"))))
            print(await manager.schedule(see()))

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["file", "-c"])
def test_a_script_lists_its_own_variable(how: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [str(script)] if how == "file" else ["-c", SCRIPT]
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "[(('ann', ['en']), [('ann', ['en'], 'mapped')]), "
        "(('bob', ['en']), [('bob', ['en'], 'mapped')])]",
        "('nothing', ['en'])",
        "[(('ANN', ['en']), [('ANN', ['en'], 'mapped')]), "
        "(('BOB', ['en']), [('BOB', ['en'], 'mapped')])]",
        "('CAPTURED NOTHING', ['en'])",
    ]
