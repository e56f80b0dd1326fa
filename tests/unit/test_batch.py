from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler.batch import Batch, Outcomes, Part
from aioscheduler.task import State, Task, TaskRef


class Home:
    """A place where nothing happens of itself."""

    identity = 1 << 64

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self.loop_thread = LoopThread("manager")
        self.loop_thread.enter(self.loop)
        self.cancelled: list[int] = []
        self.reports: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.reports.append(context))

    def cancel(self, scheduler: int, number: int) -> bool:
        self.cancelled.append(number)
        return True

    def new_due(self, when: Any) -> int:
        return 5

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        return False

    def state(self, number: int) -> State:
        return State.PENDING

    def ref(self, scheduler: int, number: int) -> TaskRef:
        return TaskRef("m", 0, scheduler, number)

    def due(self, scheduler: int, number: int) -> None: ...

    def name_of(self, label: Any) -> str:
        return str(label)

    def hold(self, task: Task[Any]) -> None: ...

    def release(self, task: Any) -> None: ...


@pytest.fixture
async def home() -> Home:
    return Home()


def make(home: Home) -> tuple[Batch[Any], list[Part]]:
    """Five tasks in two parts: numbers 10, 11, 12 and 40, 41."""
    outcomes = Outcomes(5)
    parts = [Part(outcomes, 0, home, 1, 10, 3, 7), Part(outcomes, 3, home, 2, 40, 2, [8, 9])]
    return Batch(outcomes), parts


def finish(parts: list[Part], *numbers: int) -> None:
    for number in numbers:
        part = next(p for p in parts if number in p)
        part.settle(number, State.FINISHED, b"%d" % number, int)


async def test_results_come_in_order_decoded_when_asked(home: Home) -> None:
    batch, parts = make(home)
    waiting = asyncio.ensure_future(batch)  # type: ignore[arg-type, var-annotated]
    finish(parts, 41, 10, 12, 40)
    await asyncio.sleep(0)
    assert not waiting.done()
    finish(parts, 11)
    assert await waiting == [10, 11, 12, 40, 41]
    assert (batch.done(), len(batch), batch.cancel()) == (True, 5, False)


async def test_iteration_waits_for_each(home: Home) -> None:
    batch, parts = make(home)
    seen: list[int] = []

    async def read() -> None:
        async for value in batch:
            seen.append(value)

    reader = asyncio.create_task(read())
    for number, so_far in ((11, []), (10, [10, 11]), (40, [10, 11]), (12, [10, 11, 12, 40])):
        finish(parts, number)
        for _ in range(4):
            await asyncio.sleep(0)
        assert seen == so_far
    finish(parts, 41)
    await reader


async def test_the_first_failure_in_time_is_raised(home: Home) -> None:
    batch, parts = make(home)
    parts[1].settle(41, State.FAILED, KeyError("second"), None)
    parts[0].settle(10, State.FAILED, KeyError("first"), None)
    with pytest.raises(KeyError, match="second"):
        await batch
    cancelled, parts = make(home)
    parts[0].settle(12, State.CANCELLED, None, None)
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_a_touched_handle_is_told(home: Home) -> None:
    batch, parts = make(home)
    first, last = batch[0], batch[-1]
    assert batch[0] is first
    assert (first.ref, last.ref) == (TaskRef("m", 1, 0, 10)._replace(worker=0, scheduler=1),
                                     TaskRef("m", 0, 2, 41))  # fmt: skip
    finish(parts, 10, 41, 11)
    assert (first.result(), last.result(), batch[1].result()) == (10, 41, 11)
    assert str(batch[3].priority) == "1970-01-01 00:00:00.000001+00:00"


async def test_only_what_has_not_ended_is_cancelled(home: Home) -> None:
    batch, parts = make(home)
    finish(parts, 10, 40)
    assert batch.cancel()
    assert home.cancelled == [11, 12, 41]


async def test_failures_of_a_dropped_batch_are_told_once(home: Home) -> None:
    batch, parts = make(home)
    parts[0].settle(10, State.FAILED, KeyError("x"), None)
    del batch
    gc.collect()
    finish(parts, 11, 12, 40)
    assert home.reports == []
    parts[1].settle(41, State.FAILED, KeyError("y"), None)
    (report,) = home.reports
    assert "2 of the 5" in report["message"]
    assert report["exception"].args == ("x",)
    assert parts[1]._outcomes.values[4] is None


async def test_failures_of_an_awaited_batch_are_not_told_again(home: Home) -> None:
    batch, parts = make(home)
    for number in (10, 11, 12, 40, 41):
        part = next(p for p in parts if number in p)
        part.settle(number, State.FAILED, KeyError("x"), None)
    with pytest.raises(KeyError):
        await batch
    del batch
    gc.collect()
    assert home.reports == []


class Local:
    """Something that the frame of who awaits has."""


async def test_a_failure_is_the_same_each_time_and_keeps_no_frame(home: Home) -> None:
    async def take_first(batch: Batch[Any]) -> None:
        async for _ in batch:
            pass

    async def wait(batch: Any, ask: Any) -> tuple[weakref.ref[Local], int]:
        local, frames = Local(), 0
        try:
            await ask(batch)
        except KeyError as error:
            traceback = error.__traceback__
            while traceback is not None:
                traceback, frames = traceback.tb_next, frames + 1
        del batch
        return weakref.ref(local), frames

    async def whole(batch: Any) -> None:
        await batch

    async def single(batch: Any) -> None:
        await batch[0]

    for value, decode in ((KeyError("x"), None), (b"x", KeyError)):
        for ask in (whole, take_first, single):
            batch, parts = make(home)
            finish(parts, 11, 12, 40, 41)
            parts[0].settle(10, State.FAILED, value, decode)
            gc.collect()
            gc.disable()
            try:
                ends = [await wait(batch, ask) for _ in range(3)]
                assert [local() for local, _ in ends[:2]] == [None, None]
                assert len({frames for _, frames in ends}) == 1
            finally:
                gc.enable()


def test_one_made_by_hand_is_refused_quietly() -> None:
    with pytest.raises(TypeError, match="outcomes"):
        Batch()  # type: ignore[call-arg]
    gc.collect()  # an error in its __del__ would be a warning, and that an error


@pytest.mark.parametrize("own_first", [True, False])
async def test_failures_of_this_process_and_of_workers_are_told_apart(
    home: Home, own_first: bool
) -> None:
    """One for which there was no memory, say, among others that are to be read."""

    def read(value: Any) -> Exception:
        return LookupError(value)

    batch, parts = make(home)
    ends: list[tuple[int, Any, Any]] = [(10, MemoryError("no room"), None), (11, b"x", read)]
    for number, value, decode in ends if own_first else ends[::-1]:
        parts[0].settle(number, State.FAILED, value, decode)
    assert isinstance(batch[0].exception(), MemoryError)
    assert isinstance(batch[1].exception(), LookupError)
    with pytest.raises(MemoryError if own_first else LookupError):
        await batch
