from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest
from homes import DUE, Home

from aioscheduler.task import ENDED, State, Task, TaskRef


@pytest.fixture
async def home(reports: list[dict[str, Any]]) -> Home:
    return Home(asyncio.get_running_loop())


def make(home: Home, number: int = 3, when: Any = 0) -> Task[Any]:
    return Task(home, 2, number, when)


def refuse(value: Any) -> Any:
    raise ValueError(f"cannot read {value}")


async def test_it_is_awaited_by_many_and_decoded_once(home: Home) -> None:
    task = make(home)
    waiting = [asyncio.ensure_future(task) for _ in range(3)]  # type: ignore[arg-type, var-annotated]
    await asyncio.sleep(0)
    assert home.held == [task]
    decoded: list[Any] = []

    def decode(value: bytes) -> int:
        decoded.append(value)
        return int(value)

    task._settle(State.FINISHED, b"7", decode)
    assert decoded == []
    assert await asyncio.gather(*waiting) == [7, 7, 7]
    assert (await task, task.result(), task.exception()) == (7, 7, None)
    assert decoded == [b"7"]


async def test_a_result_that_cannot_be_read_is_the_askers_failure(home: Home) -> None:
    task = make(home)
    task._settle(State.FINISHED, b"x", refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot read"):
            await task
    assert task.state is State.FINISHED


async def test_the_states(home: Home) -> None:
    task = make(home)
    assert (task.done(), task.cancelled(), task.state) == (False, False, State.RUNNING)
    for ask in (task.result, task.exception):
        with pytest.raises(asyncio.InvalidStateError, match="await it first"):
            ask()
    assert task.cancel()
    assert home.cancelled == [3]
    task._settle(State.CANCELLED, None)
    assert (task.done(), task.cancelled(), task.cancel()) == (True, True, False)
    for ask in (task.result, task.exception):
        with pytest.raises(asyncio.CancelledError):
            ask()
    failed = make(home)
    failed._settle(State.FAILED, KeyError("x"))
    assert isinstance(failed.exception(), KeyError)
    with pytest.raises(KeyError):
        await failed


async def test_it_is_rescheduled_until_it_has_ended(home: Home) -> None:
    task = make(home)
    assert task.reschedule(None)
    assert home.moved == [(3, DUE)]
    task._settle(State.FINISHED, None)
    assert not task.reschedule(None)
    assert home.moved == [(3, DUE)]


async def test_illegal_moves_raise(home: Home) -> None:
    task = make(home)
    for state in State:
        if state not in ENDED:
            with pytest.raises(asyncio.InvalidStateError, match="cannot become"):
                task._settle(state, None)
    task._settle(State.FINISHED, None)
    for state in ENDED:
        with pytest.raises(asyncio.InvalidStateError, match="cannot become"):
            task._settle(state, None)


async def test_callbacks(home: Home) -> None:
    called: list[Any] = []
    task = make(home)
    task.add_done_callback(called.append)
    task.add_done_callback(called.append)
    task.add_done_callback(lambda _: called.append("other"))
    assert task.remove_done_callback(called.append) == 2
    assert task.remove_done_callback(called.append) == 0
    task._settle(State.FINISHED, None)
    assert called == []
    await asyncio.sleep(0)
    assert called == ["other"]
    task.add_done_callback(called.append)
    await asyncio.sleep(0)
    assert called == ["other", task]


async def test_cancelling_the_awaiter_leaves_the_task(home: Home) -> None:
    task = make(home)
    waiter = asyncio.ensure_future(task)  # type: ignore[arg-type, var-annotated]
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert home.cancelled == []
    task._settle(State.FINISHED, 1)
    assert await task == 1


async def test_a_failure_that_nobody_sees_is_reported_when_dropped(
    home: Home, reports: list[dict[str, Any]]
) -> None:
    for state, asked, reported in (
        (State.FAILED, False, True),
        (State.FAILED, True, False),
        (State.LOST, False, False),  # the manager reports these, all at once
    ):
        task = make(home)
        task._settle(state, KeyError("x"))
        if asked:
            task.exception()
        del task
        gc.collect()
        assert not reports  # garbage collection may run anywhere: the loop reports
        await asyncio.sleep(0)
        assert bool(reports) == reported
        reports.clear()
    unreadable = make(home)
    unreadable._settle(State.FAILED, b"x", refuse)
    del unreadable
    gc.collect()
    await asyncio.sleep(0)
    report = reports.pop()
    assert isinstance(report["exception"], ValueError)
    assert report["scheduled_task"].keys() == {"name", "id", "ref"}


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, GeneratorExit, ValueError])
async def test_what_cannot_be_read_is_the_same_each_time(
    home: Home, kind: type[BaseException]
) -> None:
    def decode(value: bytes) -> Any:
        raise kind("on purpose")

    for state in (State.FINISHED, State.FAILED):
        task = make(home)
        task._settle(state, b"bytes", decode)
        error = task.exception()
        assert isinstance(error, kind)
        assert task.exception() is error
        with pytest.raises(kind):
            task.result()


async def test_what_ctrl_c_interrupts_is_read_again(home: Home) -> None:
    tries = [KeyboardInterrupt(), None]

    def decode(value: bytes) -> Any:
        error = tries.pop(0)
        if error is not None:
            raise error
        return value

    task = make(home)
    task._settle(State.FINISHED, b"read", decode)
    with pytest.raises(KeyboardInterrupt):
        task.result()
    assert task.result() == b"read"


def raised() -> KeyError:
    try:
        raise KeyError("x")
    except KeyError as caught:
        return caught


def length(error: BaseException) -> int:
    traceback, count = error.__traceback__, 0
    while traceback is not None:
        traceback, count = traceback.tb_next, count + 1
    return count


async def test_a_traceback_does_not_grow(home: Home) -> None:
    here, remote = make(home), make(home)
    here._settle(State.FAILED, raised())
    remote._settle(State.FAILED, b"x", lambda value: KeyError(value))
    for task in (here, remote):
        lengths = set()
        for _ in range(3):
            with pytest.raises(KeyError) as caught:
                await task
            lengths.add(length(caught.value))
        assert len(lengths) == 1


class Local:
    """A local of the awaiter's frame."""


def failed(home: Home) -> Task[Any]:
    task = make(home)
    task._settle(State.FAILED, KeyError("x"))
    return task


def failing(home: Home) -> Task[Any]:
    task = make(home)
    asyncio.get_running_loop().call_soon(task._settle, State.FAILED, b"x", KeyError)
    return task


async def test_a_failure_keeps_no_frame_of_who_awaits_it(home: Home) -> None:
    async def wait(begin: Any) -> weakref.ref[Local]:
        local = Local()
        with contextlib.suppress(KeyError):
            await begin(home)
        home.held.clear()
        return weakref.ref(local)

    async def ask() -> weakref.ref[Local]:
        local = Local()
        with contextlib.suppress(KeyError):
            failed(home).result()
        return weakref.ref(local)

    gc.disable()
    try:
        for local in (await wait(failed), await wait(failing), await ask()):
            assert local() is None
    finally:
        gc.enable()


async def test_what_it_shows(home: Home) -> None:
    when = datetime(2100, 1, 1)
    assert make(home, when=when).priority is when
    assert make(home, when=10**18 + 1).priority == datetime(2001, 9, 9, 1, 46, 40, 1, tzinfo=UTC)
    assert make(home).priority == 0
    assert make(home).ref == TaskRef("m", 1, 2, 3)
    assert str(make(home).ref) == "m/1/2/3"
    assert make(home).uuid == make(home).uuid != make(home, 4).uuid
    assert repr(make(home, when=when)) == "<Task m/1/2/3 running due 2100-01-01 00:00:00 (naive)>"
    when = when.replace(tzinfo=UTC)
    assert repr(make(home, when=when)) == "<Task m/1/2/3 running due 2100-01-01 00:00:00+00:00>"
    home.next_start = 1_000_000_000  # of another attempt, say
    assert repr(make(home, when=when)) == "<Task m/1/2/3 running due 1970-01-01 00:00:01+00:00>"
    task = make(home)
    task._id = "x"
    assert repr(task) == "<Task 'x' m/1/2/3 running>"
    assert pickle.loads(pickle.dumps(make(home).ref)) == make(home).ref
    with pytest.raises(TypeError, match="pass task.ref"):
        pickle.dumps(make(home))


async def test_its_uuid_does_not_reveal_the_next(home: Home) -> None:
    ids = [make(home, number).uuid.int for number in range(100)]
    assert len(set(ids)) == 100
    assert len({after - before for before, after in zip(ids, ids[1:], strict=False)}) == 99


async def test_only_what_is_durable_can_be_waited_for_until_it_is_stored(home: Home) -> None:
    task = Task[int](home, 0, 3, 5, "task")
    for kept in (None, ()):
        task._kept = kept
        with pytest.raises(TypeError, match=r"decorate its function with @durable, and give its"):
            await task.stored()
    task._kept = "kept"
    await task.stored()
    assert home.stored_ones == [(3, "kept")]


async def test_the_failure_of_what_is_durable_is_not_unheard(
    home: Home, reports: list[dict[str, Any]]
) -> None:
    task = Task[int](home, 0, 3, 5, "task")
    task._kept = "kept"
    task._settle(State.FAILED, ValueError("a dead letter"))
    del task
    gc.collect()
    await asyncio.sleep(0)
    assert not reports


async def test_a_handle_that_nobody_waits_for_any_more_is_released(home: Home) -> None:
    task = make(home)

    async def wait() -> None:
        await task

    waiting = [asyncio.ensure_future(wait()) for _ in range(2)]
    await asyncio.sleep(0)
    assert home.held == [task]
    for each in waiting:
        each.cancel()
        await asyncio.sleep(0)
        assert home.held == ([task] if each is waiting[0] else [])
    task.add_done_callback(print)
    assert home.held == [task]
    assert task.remove_done_callback(print) == 1
    assert home.held == []


async def test_the_uuid_of_a_durable_task_is_that_of_its_row_wherever_it_is(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make(home).uuid

    def ref(scheduler: int, number: int, kept: Any) -> TaskRef:
        return TaskRef("51" * 16, -1, -1, kept)

    monkeypatch.setattr(home, "ref", ref)
    elsewhere = Home(home.loop)
    elsewhere.identity = 6 << 64
    monkeypatch.setattr(elsewhere, "ref", ref)
    first, moved, other, late = make(home), make(elsewhere, 9), make(home), make(home)
    first._kept = moved._kept = 7
    other._kept, late._kept = 8, -1
    assert first.uuid == moved.uuid
    assert len({here, first.uuid, other.uuid, late.uuid}) == 4
    assert first.uuid.version == 4


# ---- handles that follow another's task


async def test_a_handle_may_follow_another_to_its_end(home: Home) -> None:
    first, other = make(home), make(Home(home.loop), 9)
    other._kept, other._id = "kept", "a"
    ends: list[Task[Any]] = []
    first.add_done_callback(ends.append)
    first._follow(other)
    assert (first._home, first._scheduler, first._number) == (other._home, 2, 9)
    assert (first.id, first._kept, first.done()) == ("a", "kept", False)
    other._settle(State.FINISHED, b"7", int)
    await asyncio.sleep(0)
    assert first.result() == other.result() == 7
    await asyncio.sleep(0)
    assert ends == [first]


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize(
    ("state", "value"),
    [(State.FINISHED, b"7"), (State.CANCELLED, None), (State.FAILED, KeyError("k"))],
)
async def test_a_handle_may_follow_one_that_has_ended(
    home: Home, state: State, value: Any, read: bool
) -> None:
    first, other = make(home), make(home, 9)
    other._kept = "kept"
    other._settle(state, value, int if state is State.FINISHED else None)
    if read and state is not State.CANCELLED:
        other.exception()
    first._follow(other)
    assert first.state is state
    if state is State.FINISHED:
        assert first.result() == 7
    elif state is State.FAILED:
        assert first.exception() is value
        with pytest.raises(KeyError):
            await first
