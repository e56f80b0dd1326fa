"""What a worker's loop is doing, as seen from outside."""

from __future__ import annotations

import asyncio
import selectors
from functools import partial
from threading import get_ident
from typing import Any

import looking
from aiomultiprocess.types import Unit  # type: ignore[import-untyped]  # as in `process`

from aioscheduler._processes.process import WorkerProcess, workers_module
from aioscheduler.testing import FakeClock

steps = workers_module("steps")


async def describe(func: Any, *args: Any) -> tuple[str, str, object, object]:
    """Return the description while `func` runs, after another task; its owner; and its result."""
    looking.heard.clear()
    async with FakeClock().manager(1, workers=1) as manager:
        looking.workers[:] = [manager._remotes[0].supervisor.process.worker]  # type: ignore[union-attr]
        await manager.schedule(looking.give())
        (result,) = await manager.starmap(func, [args])
    who, stack, owner = looking.heard
    ours = "aioscheduler" in stack.replace(looking.__file__, "")
    assert ours is (func is looking.write_slowly)  # called by the pickler
    assert "_run_once" not in stack
    return who, stack, owner, result


async def test_the_task_that_runs_is_named_and_its_own_frames_shown() -> None:
    who, stack, owner, ref = await describe(looking.first_step)
    assert who == f"task looking:first_step {ref}"
    assert owner == ref
    assert [line for line in stack.splitlines() if " in " in line][0].endswith("in first_step")
    who, stack, owner, ref = await describe(looking.later_step)
    assert who == f"task looking:later_step {ref}"
    assert owner == ref
    assert "in later_step" in stack


async def test_an_asyncio_task_begun_by_a_task_is_named_by_its_function_and_belongs_to_it() -> None:
    who, stack, owner, ref = await describe(looking.own_task)
    assert who == f"looking:first_step(), which task {ref} has begun,"
    assert owner == ref
    assert "in first_step" in stack
    who, stack, owner, ref = await describe(looking.callback)
    assert who == f"a callback of task {ref}"
    assert owner == ref
    assert "in look" in stack


async def test_a_step_begun_by_no_task_is_nobodys() -> None:
    who, stack, owner, _ = await describe(looking.callback_of_nobody)
    assert who == "a callback of the loop"
    assert owner is None
    assert "in look" in stack


async def test_the_owner_of_an_asyncio_task_may_be_unknown() -> None:
    who, stack, owner, _ = await describe(looking.task_of_nobody)
    assert who == "the asyncio task of looking:look_alone()"
    assert owner is None
    assert "in look_alone" in stack


class Unnamed:
    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


class WorkerRunner:
    def context_of(self, engine: object) -> Any:
        return None, "m", 0, 0, None


class Frame:
    def __init__(self, local: dict[str, Any]) -> None:
        self.f_locals = local


def test_a_callable_that_raises_when_asked_for_its_name_is_reported_all_the_same() -> None:
    own = Frame({"self": WorkerRunner(), "engine": None, "number": 7, "called": Unnamed()})
    who = steps.describe(steps.Step(None, None, own, None), "")
    assert who == f"task <{__name__}.Unnamed, whose name_of raises LookupError> m/0/0/7"


async def test_a_plain_function_is_named() -> None:
    who, _, owner, _ = await describe(partial(looking.look))
    assert who == f"task functools:partial {owner}"
    who, _, owner, _ = await describe(looking.look)
    assert who == f"task looking:look {owner}"


async def test_a_task_that_pickles_its_result_is_named() -> None:
    who, _, owner, _ = await describe(looking.write_slowly, 7)
    assert who == f"task looking:write_slowly {owner}"


async def test_before_the_first_task_it_is_the_initializer() -> None:
    looking.heard.clear()
    manager = FakeClock().manager(1, workers=1, initializer=looking.look)
    manager.start()
    looking.workers[:] = [manager._remotes[0].supervisor.process.worker]  # type: ignore[union-attr]
    await manager.ready()
    await manager.close()
    who, stack, owner = looking.heard
    assert owner is None
    assert who == "the initializer"
    assert [line.split()[-1] for line in stack.splitlines() if " in " in line] == ["look"]


# ---- finding the step


def steps_while(run: Any) -> list[Any]:
    """Return what is seen from inside an asyncio loop, while `run(look)` is awaited in it."""
    loop = asyncio.new_event_loop()
    seen: list[Any] = []
    try:
        loop.run_until_complete(run(lambda: seen.append(steps.find_step(loop, get_ident()))))
    finally:
        loop.close()
    return seen


def test_one_step_is_the_same_for_as_long_as_it_lasts() -> None:
    async def run(look: Any) -> None:
        look()
        look()

    first, second = steps_while(run)
    assert second.is_same(first)


def test_a_callback_is_another_step_each_time() -> None:
    async def run(look: Any) -> None:
        for _ in range(3):
            asyncio.get_running_loop().call_soon(look)
        await asyncio.sleep(0)

    first, second, third = steps_while(run)
    assert not second.is_same(first)
    assert not third.is_same(first)
    assert not third.is_same(second)


def test_a_loop_that_waits_is_in_no_step() -> None:
    seen: list[Any] = []

    class Looking(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            seen.append(steps.find_step(loop, get_ident()))
            return super().select(timeout)

    loop = asyncio.SelectorEventLoop(Looking())
    try:
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert seen
    assert not any(seen)


def test_a_loop_without_frames_is_seen_all_the_same() -> None:
    """The called frame is right above the loop's caller; without a context it has no owner."""
    seen: list[Any] = []
    made: list[Any] = []

    def look(awaitable: Any = None) -> None:
        seen.append(steps.find_step(made[-1], get_ident()))

    class Direct(asyncio.AbstractEventLoop):
        """Has no frames of its own."""

        run_until_complete = staticmethod(look)  # type: ignore[assignment]

        def __init__(self) -> None:
            made.append(self)

    unit = Unit(lambda: None, (), {}, None, loop_initializer=Direct)
    try:
        WorkerProcess.run_async(unit)
    finally:
        asyncio.set_event_loop(None)
    (step,) = seen
    assert step.called.f_code is look.__code__
    assert steps.owner_of(step) is None
    assert steps.describe(step, "") == "a callback of the loop"


def test_a_thread_that_is_not_there_is_in_no_step() -> None:
    loop = asyncio.new_event_loop()
    assert steps.find_step(loop, 0) is None
    assert steps.find_step(loop, get_ident()) is None  # here, where no loop runs
    loop.close()
    assert steps.describe(None, "") == "a callback of the loop"
