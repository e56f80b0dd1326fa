"""What an initializer opens: entered and left by one task, with every failure reported."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from turning import turns

from aioscheduler._scheduling import lifespan
from aioscheduler._scheduling.ending import LAST_WORDS
from aioscheduler._scheduling.lifespan import Lifespan, time_to_leave

word: ContextVar[str] = ContextVar("word", default="none")

pytestmark = pytest.mark.usefixtures("no_tasks_left")


class Shared:
    """Records what happens to it, and behaves as configured when it is left."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.exit: Callable[[], Any] = lambda: None
        self.ends: list[Exception] = []

    async def __aenter__(self) -> None:
        word.set("entered")
        self.log.append(asyncio.current_task())

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> Any:
        self.log.append(asyncio.current_task())
        self.log.append(kind)
        result = self.exit()
        return await result if asyncio.iscoroutine(result) else result

    def make(self, initializer: Any = None) -> Lifespan:
        return Lifespan(initializer or (lambda: self), (), self.ends.append)


async def test_it_is_entered_and_left_in_one_task_and_its_variables_are_seen() -> None:
    shared = Shared()
    made = shared.make()
    await made.enter()
    assert (word.get(), made.context[word]) == ("none", "entered")
    assert made.runs_in(shared.log[0])
    assert not made.runs_in(asyncio.current_task())
    assert not made.runs_in(None)
    assert made.describe() == "the lifespan that the initializer has returned"
    await made.leave(None)
    entered, left, kind = shared.log
    assert (entered, kind) == (left, None)
    assert shared.ends == []


async def test_a_timeout_may_be_open_meanwhile() -> None:
    @contextlib.asynccontextmanager
    async def share(text: str) -> AsyncIterator[None]:
        async with asyncio.timeout(3600), asyncio.TaskGroup():
            word.set(text)
            yield

    made = Lifespan(share, ("hello",), lambda error: None)
    await made.enter()
    assert made.context[word] == "hello"
    await made.leave(None)


class Connection:
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...


@pytest.mark.parametrize("result", [None, 5, "text", object(), Connection(), [Shared()], Shared])
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_is_no_lifespan_is_left_alone(result: Any, is_async: bool) -> None:
    async def later() -> Any:
        return result

    made = Shared().make(later if is_async else lambda: result)
    await made.enter()
    assert made.describe() == "the initializer"
    await made.leave(None)


async def test_what_is_awaited_first_may_be_a_lifespan() -> None:
    shared = Shared()

    async def later() -> Shared:
        return shared

    made = shared.make(later)
    await made.enter()
    await made.leave(None)
    assert len(shared.log) == 3


def generator() -> Iterator[None]:
    yield


async def async_generator() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    "returned", [generator, async_generator, contextlib.contextmanager(generator)]
)
async def test_what_would_never_run_is_refused(returned: Any) -> None:
    made = Shared().make(lambda: returned())
    with pytest.raises(
        TypeError, match=r"which would never run; .*@contextlib\.asynccontextmanager"
    ):
        await made.enter()


@pytest.mark.parametrize(
    "error", [LookupError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]
)
@pytest.mark.parametrize("where", ["initializer", "enter"])
async def test_what_keeps_it_from_being_entered_is_raised(where: str, error: Any) -> None:
    shared = Shared()
    error = type(error)(*error.args)  # it gets a note

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    if where == "enter":
        shared.__class__ = type("Bad", (Shared,), {"__aenter__": lambda self: fail_later()})
    made = shared.make(fail if where == "initializer" else None)
    with pytest.raises(type(error)) as caught:
        await made.enter()
    hint = "the Bad that the initializer has returned was entered as a lifespan"
    assert any(hint in note for note in getattr(caught.value, "__notes__", ())) == (
        where == "enter"
    )
    await made.leave(None)
    assert shared.ends == []


@pytest.mark.parametrize("swallows", [False, True])
async def test_cancelling_enter_cancels_the_initializer(swallows: bool) -> None:
    shared = Shared()

    async def wait() -> Any:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            shared.log.append("cancelled")
            if not swallows:
                raise
        return shared

    made = shared.make(wait)
    entering = asyncio.create_task(made.enter())
    await turns()
    entering.cancel()
    await turns()
    assert entering.cancelled()
    assert shared.log[0] == "cancelled"
    assert len(shared.log) == (4 if swallows else 1)  # it was entered all the same, and is left
    assert shared.ends == []


async def test_cancelling_enter_after_it_was_entered_leaves_it_in_order() -> None:
    shared = Shared()
    made = shared.make()
    entering = asyncio.create_task(made.enter())
    while not shared.log:
        await asyncio.sleep(0)
    entering.cancel()
    await turns()
    assert len(shared.log) == 1
    await made.leave(None)
    assert shared.log[2] is None


async def test_one_that_is_cancelled_before_it_begins_runs_nothing() -> None:
    shared = Shared()
    made = shared.make()
    made.cancel()
    await made.enter()
    await made.leave(None)
    assert shared.log == []
    made = shared.make()
    entering = asyncio.create_task(made.enter())
    await asyncio.sleep(0)
    made.cancel()  # its own task has not taken a step
    await entering
    assert shared.log == []


@pytest.mark.parametrize("swallows", [False, True])
async def test_one_that_takes_too_long_to_leave_is_cancelled_with_a_warning(
    swallows: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan, "LAST_WORDS", 0.001)
    shared = Shared()
    may_end = asyncio.get_running_loop().create_future()

    async def linger() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if not swallows:
                raise
            await may_end

    shared.exit = linger
    made = shared.make()
    await made.enter()
    await made.leave(0)
    said = "is cancelled: it was not left within 0.0 s; does it wait for a background task that"
    assert said in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
    may_end.set_result(None)
    await made.leave(None)  # a second caller waits, too
    assert caplog.text.count("is cancelled") == 1


class Unopened:
    """An initializer that waits until it is cancelled, and then behaves as configured."""

    def __init__(self, clean_up: Callable[[], Any]) -> None:
        self.cancels = 0
        self._clean_up = clean_up

    async def __call__(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            self.cancels += 1
        try:
            await self._clean_up()
        except asyncio.CancelledError:
            self.cancels += 1
            raise


@pytest.mark.parametrize("cancelled", [True, False])
async def test_what_is_still_being_entered_is_cancelled_once_and_awaited(
    cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    unopened = Unopened(turns)
    made = Shared().make(unopened)
    entering = asyncio.create_task(made.enter())
    await asyncio.sleep(0.001)
    if cancelled:
        entering.cancel()  # as a worker does with its boot
        await asyncio.wait([entering])
    await made.leave(60)
    await asyncio.wait([entering])
    assert unopened.cancels == 1
    assert not caplog.records


async def test_what_is_cancelled_before_it_begins_is_not_taken_for_entered() -> None:
    """By who cancels tasks of the loop, and does not know this one."""
    called: list[int] = []
    made = Shared().make(lambda: called.append(1))
    entering = asyncio.create_task(made.enter())
    await asyncio.sleep(0)
    assert made._task is not None
    made._task.cancel()
    with pytest.raises(asyncio.CancelledError, match="before it began"):
        await entering
    assert not called
    await made.leave(None)


async def test_what_does_not_end_its_clean_up_is_cancelled_once_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unopened = Unopened(asyncio.get_running_loop().create_future)
    made = Shared().make(unopened)
    entering = asyncio.create_task(made.enter())
    await asyncio.sleep(0.001)
    await made.leave(0)
    with contextlib.suppress(asyncio.CancelledError):
        await entering
    assert unopened.cancels == 2
    (record,) = caplog.records
    assert record.getMessage() == (
        "the initializer is cancelled once more: it has not ended within 0.0 s"
    )


async def test_an_error_of_its_clean_up_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("no goodbye")

    made = Shared().make(Unopened(fail))
    entering = asyncio.create_task(made.enter())
    await asyncio.sleep(0.001)
    entering.cancel()
    await asyncio.wait([entering])
    await made.leave(60)
    (record,) = caplog.records
    assert record.getMessage() == "the initializer failed when it was cancelled"
    assert "LookupError: no goodbye" in caplog.text


async def test_who_runs_in_it_is_known_and_may_wait_until_it_is_left() -> None:
    found: list[Any] = []

    @contextlib.asynccontextmanager
    async def share() -> AsyncIterator[None]:
        async def wait() -> None:
            found.append(made.encloses_caller())
            await made.wait_inside(asyncio.get_running_loop().create_future())
            found.append("waited")

        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            yield
        found.append(made.encloses_caller())

    made = Lifespan(share, (), lambda error: None)
    await made.enter()
    assert not made.encloses_caller()
    await turns()
    assert found == [True]
    await made.leave(None)
    assert found == [True, "waited", True]
    other = Lifespan(share, (), lambda error: None)
    assert not made.context.run(other.encloses_caller)


async def test_what_runs_in_it_does_not_wait_for_what_is_over() -> None:
    made = Shared().make()
    await made.enter()
    over = asyncio.get_running_loop().create_future()
    over.set_result(None)
    await made.wait_inside(over)
    await made.leave(None)


async def test_an_error_it_raises_when_it_is_left_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared = Shared()
    made = shared.make()
    await made.enter()

    async def fail() -> None:
        raise LookupError("no goodbye")

    shared.exit = fail
    await made.leave(None)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "LookupError: no goodbye" in caplog.text
    assert shared.ends == []


async def test_one_that_is_cancelled_cleans_up_without_a_report() -> None:
    shared = Shared()
    made = shared.make()
    await made.enter()
    made.cancel()
    await turns()
    assert shared.log[2] is asyncio.CancelledError
    assert shared.ends == []
    await made.leave(None)


@pytest.mark.parametrize("suppressed", [False, True])
async def test_one_that_ends_by_itself_is_reported(suppressed: bool) -> None:
    shared = Shared()
    shared.exit = lambda: suppressed
    made = shared.make()
    await made.enter()
    shared.log[0].cancel()  # like a task group with a failed task
    await turns()
    (reason,) = shared.ends
    assert "has ended before its tasks" in str(reason)
    assert isinstance(reason.__cause__, asyncio.CancelledError) is not suppressed
    await made.leave(None)


class Unreadable(Exception):
    def __repr__(self) -> str:
        raise SystemExit(3)


async def test_one_that_ends_with_an_unreadable_error_is_reported() -> None:
    shared = Shared()

    def fail() -> None:
        raise Unreadable

    shared.exit = fail
    made = shared.make()
    await made.enter()
    shared.log[0].cancel()
    await turns()
    (reason,) = shared.ends
    assert str(reason).endswith("has ended before its tasks: Unreadable")
    assert isinstance(reason.__cause__, Unreadable)


def test_it_has_the_time_that_the_tasks_have_left() -> None:
    assert time_to_leave(100.0, None, 500.0) is None
    assert time_to_leave(100.0, 10.0, 103.0) == pytest.approx(7.4)
    assert time_to_leave(100.0, 0, 100.1) == pytest.approx(0.3)
    assert time_to_leave(100.0, 10.0, 200.0) == LAST_WORDS
