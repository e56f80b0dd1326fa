from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from homes import Home

from aioscheduler.batch import Batch
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State, TaskRef


@pytest.fixture
async def home(reports: list[dict[str, Any]]) -> Home:
    return Home(asyncio.get_running_loop())


NUMBERS = (10, 11, 12, 40, 41)


def make(home: Home, *flags: bool) -> tuple[Batch[Any], list[Part]]:
    """Five tasks in two parts: numbers 10, 11, 12 and 40, 41."""
    outcomes = Outcomes(5, "f")
    parts = [Part(outcomes, 0, home, 1, 10, 3, 7), Part(outcomes, 3, home, 2, 40, 2, [8, 9])]
    return Batch(outcomes, *flags), parts


def finish(parts: list[Part], *numbers: int) -> None:
    for number in numbers:
        part = next(p for p in parts if number in p)
        part.settle(number, State.FINISHED, b"%d" % number, int)


def fail(parts: list[Part], *numbers: int) -> None:
    for number in numbers:
        part = next(p for p in parts if number in p)
        part.settle(number, State.FAILED, number, KeyError)


def unreadable(payload: Any) -> Any:
    raise LookupError(payload)


def end_each_way(parts: list[Part]) -> None:
    """End the tasks: one returned an exception, others cancelled, failed, lost, undecodable."""
    parts[0].settle(10, State.FINISHED, EOFError("a result"), None)
    parts[0].settle(11, State.CANCELLED, None, None)
    parts[0].settle(12, State.FAILED, b"x", KeyError)
    assert parts[1].settle_row(40, [OSError("lost")], State.LOST, None)
    parts[1].settle(41, State.FINISHED, b"y", unreadable)


EACH_WAY = [
    (EOFError, ("a result",)),
    (asyncio.CancelledError, ("task 1 of the batch was cancelled",)),
    (KeyError, (b"x",)),
    (OSError, ("lost",)),
    (LookupError, (b"y",)),
]


def shown(ends: list[Any]) -> list[Any]:
    return [(type(end), end.args) for end in ends]


async def give_all(iterator: Any) -> list[Any]:
    """Iterate to the end, whatever is raised; each result is in a list of its own."""
    ends: list[Any] = []
    while True:
        try:
            ends.append([await anext(iterator)])
        except StopAsyncIteration:
            return ends
        except BaseException as error:
            ends.append(error)


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


async def test_a_handle_taken_from_a_batch_is_notified(home: Home) -> None:
    batch, parts = make(home)
    first, last = batch[0], batch[-1]
    assert batch[0] is first
    assert (first.ref, last.ref) == (TaskRef("m", 1, 1, 10), TaskRef("m", 1, 2, 41))
    finish(parts, 10, 41, 11)
    assert (first.result(), last.result(), batch[1].result()) == (10, 41, 11)
    assert str(batch[3].priority) == "1970-01-01 00:00:00.000001+00:00"


async def test_only_what_has_not_ended_is_cancelled(home: Home) -> None:
    batch, parts = make(home)
    finish(parts, 10, 40)
    assert batch.cancel()
    assert home.cancelled == [11, 12, 41]


async def test_an_iterator_goes_on_behind_what_it_raises(home: Home) -> None:
    batch, parts = make(home)
    end_each_way(parts)
    (result,), *failures = await give_all(aiter(batch))
    assert shown([result, *failures]) == EACH_WAY
    seen = []
    with pytest.raises(asyncio.CancelledError):
        async for value in batch:
            seen.append(value)
    assert shown(seen) == EACH_WAY[:1]
    empty: Batch[Any] = Batch(Outcomes(0))
    assert (await empty, await give_all(aiter(empty))) == ([], [])


async def test_failures_take_the_places_of_results_if_asked(home: Home) -> None:
    batch, parts = make(home, True)
    waiting = asyncio.ensure_future(batch)  # type: ignore[arg-type, var-annotated]
    iterator = aiter(batch)
    fail(parts, 41, 10)
    assert str(await anext(iterator)) == "10"
    await asyncio.sleep(0)
    assert not waiting.done()
    finish(parts, 11, 12, 40)
    first, *results, last = await waiting
    assert (str(first), results, str(last)) == ("10", [11, 12, 40], "41")
    with pytest.raises(KeyError, match="41"):
        batch[4].result()
    batch, parts = make(home, True)
    end_each_way(parts)
    assert shown(await batch) == shown([end async for end in batch]) == EACH_WAY
    assert [end.__traceback__ for end in await batch] == [None] * 5
    empty: Batch[Any] = Batch(Outcomes(0), True)
    assert (await empty, await give_all(aiter(empty))) == ([], [])


async def test_iterations_are_apart_and_who_shares_one_shares_the_items(home: Home) -> None:
    batch, parts = make(home)
    one, other = aiter(batch), aiter(batch)
    sharing = [asyncio.create_task(give_all(one)) for _ in range(2)]
    for number in NUMBERS:
        finish(parts, number)
        for _ in range(4):
            await asyncio.sleep(0)
    everything = [[number] for number in NUMBERS]
    assert sorted(sum(await asyncio.gather(*sharing), [])) == everything
    assert await give_all(other) == everything
    assert await give_all(one) == []


async def test_a_wait_of_an_iterator_that_is_given_up_leaves_nothing_and_takes_nothing(
    home: Home,
) -> None:
    batch, parts = make(home)
    iterator = aiter(batch)
    for _ in range(2):
        waiting = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        assert batch._outcomes._waiters
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not batch._outcomes._waiters
    finish(parts, 10)
    assert await anext(iterator) == 10


async def test_a_loop_that_is_left_lets_the_batch_go_at_once(home: Home) -> None:
    batch, parts = make(home)
    finish(parts, 10)
    gone = weakref.ref(batch)
    gc.disable()
    try:
        async for _ in batch:
            break
        del batch
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("flag", [False, True])
async def test_what_ctrl_c_keeps_from_being_read_is_read_when_asked_again(
    home: Home, flag: bool
) -> None:
    presses = [KeyboardInterrupt()]

    def read(value: Any) -> Any:
        if presses:
            raise presses.pop()
        return value

    batch, parts = make(home, flag)
    parts[0].settle(10, State.FINISHED, b"x", read)
    iterator = aiter(batch)
    with pytest.raises(KeyboardInterrupt):
        await anext(iterator)
    assert await anext(iterator) == b"x"


async def test_a_failure_is_not_taken_for_the_end_of_the_loop(home: Home) -> None:
    batch, parts = make(home)
    parts[0].settle(10, State.FAILED, StopAsyncIteration("of a task"), None)
    finish(parts, 11)
    iterator = aiter(batch)
    with pytest.raises(RuntimeError, match="StopAsyncIteration") as caught:
        await anext(iterator)
    assert isinstance(caught.value.__cause__, StopAsyncIteration)
    assert await anext(iterator) == 11


async def test_failures_of_a_dropped_batch_are_reported_once(
    home: Home, reports: list[dict[str, Any]]
) -> None:
    batch, parts = make(home)
    parts[0].settle(10, State.FAILED, KeyError("x"), None)
    del batch
    gc.collect()
    finish(parts, 11, 12, 40)
    assert reports == []
    parts[1].settle(41, State.FAILED, KeyError("y"), None)
    report = reports.pop()
    assert report["message"] == (
        "2 of the 5 tasks of a batch of f failed, and nobody awaited them; task 0 failed with this"
    )
    assert report["exception"].args == ("x",)
    ref = home.ref(parts[0].scheduler, 10)
    assert report["scheduled_task"] == {"name": "f", "id": None, "ref": ref}
    assert parts[1]._outcomes.values[4] is None


async def test_failures_of_an_awaited_batch_are_not_reported_again(
    home: Home, reports: list[dict[str, Any]]
) -> None:
    batch, parts = make(home)
    for number in (10, 11, 12, 40, 41):
        part = next(p for p in parts if number in p)
        part.settle(number, State.FAILED, KeyError("x"), None)
    with pytest.raises(KeyError):
        await batch
    del batch
    gc.collect()
    assert reports == []


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("given", range(6))
@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("order", [NUMBERS, NUMBERS[::-1], (12, 10, 41, 11, 40)])
async def test_failures_behind_the_end_of_all_iterations_are_reported(
    home: Home,
    reports: list[dict[str, Any]],
    order: tuple[int, ...],
    before: int,
    given: int,
    flag: bool,
) -> None:
    """Tasks fail in any order, some of them after the batch was dropped."""
    batch, parts = make(home, flag)
    outcomes = batch._outcomes
    fail(parts, *order[:before])
    heard = min(given, *(n for n in range(6) if n == 5 or outcomes.states[n] is None))

    async def iterate(batch: Batch[Any], count: int) -> None:
        iterator = aiter(batch)
        for _ in range(count):
            if flag:
                await anext(iterator)
            else:
                with pytest.raises(KeyError):
                    await anext(iterator)

    await iterate(batch, heard)
    await iterate(batch, heard // 2)
    del batch
    gc.collect()
    fail(parts, *order[before:])
    await asyncio.sleep(0)  # the loop reports
    assert len(reports) == (heard < 5)
    for report in reports:
        (number,) = report["exception"].args
        assert number in NUMBERS[heard:]
        assert report["message"].startswith(f"{5 - heard} of the 5 tasks")
        assert f"task {NUMBERS.index(number)} failed with this" in report["message"]
    reports.clear()
    kept = [value for value in outcomes.values[heard:] if value is not None]
    assert len(kept) <= max(1, before)  # of those after the drop, one at most


async def test_one_that_is_dropped_while_its_last_task_ends_is_reported_once(
    home: Home, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Garbage collection may drop it at any point of the settling."""
    batch, parts = make(home)
    held, last, ref = [batch], batch[4], home.ref
    del batch
    fail(parts, *NUMBERS[:4])

    def ref_and_drop(scheduler: int, number: int, kept: Any) -> TaskRef:
        held.clear()
        return ref(scheduler, number, kept)

    monkeypatch.setattr(home, "ref", ref_and_drop)
    fail(parts, 41)
    assert not held
    assert isinstance(last.exception(), KeyError)
    await asyncio.sleep(0)  # the loop reports
    report = reports.pop()
    assert report["message"].startswith("4 of the 5 tasks")  # the handle reported the last one


@pytest.mark.parametrize("held", [[10], [12, 41], list(NUMBERS)])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("asked", [True, False])
async def test_a_failure_that_a_handle_received_is_not_reported_by_the_batch(
    home: Home, reports: list[Any], held: list[int], early: bool, asked: bool
) -> None:
    batch, parts = make(home)
    handles = [batch[NUMBERS.index(number)] for number in held] if early else []
    fail(parts, *NUMBERS)
    handles = handles or [batch[NUMBERS.index(number)] for number in held]
    if asked:
        assert all(isinstance(handle.exception(), KeyError) for handle in handles)
    del batch, handles
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    told = sorted(report["exception"].args[0] for report in reports)
    left = [number for number in NUMBERS if number not in held]
    assert told == sorted(([] if asked else held) + left[:1])
    if left:
        (report,) = [r for r in reports if r["message"].startswith(f"{len(left)} of the 5")]
        assert f"task {NUMBERS.index(left[0])} failed with this" in report["message"]
    reports.clear()


@pytest.mark.parametrize("flag", [False, True])
async def test_awaiting_a_batch_receives_all_failures(
    home: Home, reports: list[dict[str, Any]], flag: bool
) -> None:
    batch, parts = make(home, flag)
    fail(parts, *NUMBERS[: 5 if flag else 2])
    if flag:
        assert len(await batch) == 5
    else:
        with pytest.raises(KeyError):
            await batch
    del batch
    gc.collect()
    if not flag:
        fail(parts, *NUMBERS[2:])
        assert parts[1]._outcomes.values[3:] == [None, None]  # nobody will ask for them
    await asyncio.sleep(0)
    assert reports == []


class Local:
    """A local of the awaiter's frame."""


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

    async def from_a_list(batch: Any) -> None:
        raise (await batch)[0]

    async def from_an_iterator(batch: Any) -> None:
        raise await anext(aiter(batch))

    def fail_alone(part: Part, value: Any, decode: Any) -> None:
        part.settle(10, State.FAILED, value, decode)

    def lose_a_row(part: Part, value: Any, decode: Any) -> None:
        assert part.settle_row(10, [value], State.LOST, decode)

    asks = (
        *((whole, False), (take_first, False), (single, False)),
        *((from_a_list, True), (from_an_iterator, True)),
    )
    ends_of_the_first = (
        (fail_alone, KeyError("x"), None),
        (fail_alone, b"x", KeyError),
        (lose_a_row, KeyError("x"), None),
    )
    for end, value, decode in ends_of_the_first:
        for ask, flag in asks:
            batch, parts = make(home, flag)
            finish(parts, 11, 12, 40, 41)
            end(parts[0], value, decode)
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
async def test_failures_of_this_process_and_of_workers_are_distinguished(
    home: Home, own_first: bool
) -> None:
    """A failure made here, as for lack of memory, among others that must be decoded."""

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
