"""One task: decoded, called, awaited, and its end reported."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest
from acting import (
    Cancelling,
    Counting,
    call_later,
    exhausted,
    leave_a_word,
    leave_a_word_later,
    note,
    note_later,
    ran,
)
from propagated import (
    Unreadable,
    look,
    look_again,
    look_later,
    refuse_to_restore,
    request_id,
)
from solo import NOW, Make, Rig, after, fail, forever, give
from turning import turns

from aioscheduler import Retry, TooLate, current_attempt, current_due, durable
from aioscheduler._processes.process import workers_module
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.latebound import LateBound
from aioscheduler._shipping.payloads import text_in
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import FORGET
from aioscheduler._transport.wire import (
    CANCELLED,
    FAILED,
    FINISHED,
    TOO_LATE,
    UNASKED,
    UNKNOWN,
    UNREADABLE,
    Kind,
)
from aioscheduler.options import Options

runner_module = workers_module("runner")


async def test_an_unreadable_call_fails_that_task_alone(rig: Rig) -> None:
    rig.send(Kind.SCHEDULE, 0, 0, 0, 999, None, [1])  # a function that was not defined
    rig.schedule(1, give(1))
    await turns()
    frames = rig.take()
    (failed,) = (frame for frame in frames if frame[0] == Kind.ENDED and frame[3] == UNREADABLE)
    assert failed[2] == [0]
    assert [Kind.ENDED, 0, [1], FINISHED, [1]] in frames


async def test_what_a_task_raises_has_its_own_traceback(rig: Rig) -> None:
    rig.schedule(0, fail("on purpose"))
    await turns()
    error = rig.failure(rig.take()[-1][4][0])
    assert (type(error), error.args) == (LookupError, ("on purpose",))
    text = str(error.__cause__)
    assert "in fail" in text
    assert "aioscheduler_workers" not in text


async def test_a_forked_child_goes_on_with_its_task_alone(rig: Rig) -> None:
    ends: list[BaseException | None] = []

    class Ended(BaseException):
        """Stands for the end of the process."""

    def end(error: BaseException | None) -> None:
        ends.append(error)
        raise Ended

    rig.worker.disown(end)
    engine = rig.worker._engines[0]
    function, payload, _ = rig.shipper.take(fail("in the child"))
    rig.tell_definitions()
    with contextlib.suppress(Ended):
        await rig.worker._runner.execute(engine, 0, (function, payload, None), 0)
    (error,) = ends
    assert isinstance(error, LookupError)
    function, payload, _ = rig.shipper.take(give(1))
    rig.tell_definitions()
    with contextlib.suppress(Ended):
        await rig.worker._runner.execute(engine, 1, (function, payload, None), 0)
    assert ends[1:] == [None]
    await turns()
    assert rig.take() == []  # it reports nothing to the host


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no task is run while its slice is begun")
async def test_nor_does_it_begin_the_rest_of_a_slice(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def fork() -> None:
        rig.worker.disown(lambda error: None)
        log.append("the task")

    def another() -> None:
        log.append("another")

    calls = {0: fork, 1: another}
    monkeypatch.setattr(runner_module, "open_call", lambda _, number, args: (calls[number], (), {}))
    rig.send(Kind.SCHEDULE, 0, 0, 0, [0, 1], None, [None, None])
    await turns()
    assert rig.take() == [[Kind.ANNOUNCED, 0, [0, 1]]]
    assert log == ["the task"]


# ---- calls that need no asyncio task


async def test_a_plain_function_is_called_in_its_slice_with_a_context_of_its_own(
    rig: Rig,
) -> None:
    rig.call(0, leave_a_word, ["a", "b", "c"])
    await turns()
    _, (_, _, numbers, _, values) = rig.take()
    assert numbers == [0, 1, 2]
    if sys.version_info >= (3, 12):
        assert values == ["none, None"] * 3
    else:
        assert [value[:5] for value in values] == ["none,"] * 3
    assert not any(engine.running for engine in rig.worker._engines)


async def test_no_task_overtakes_another_that_is_due_with_it(rig: Rig) -> None:
    """Whether a plain function is called at once or a coroutine begins in the next turn."""
    functions = [rig.shipper.take_function(note), rig.shipper.take_function(note_later)]
    rig.tell_definitions()
    order = [functions[n % 3 == 1] for n in range(12)]
    for first in (0, 12):  # the second time, the functions are known
        ran.clear()
        numbers = list(range(first, first + 12))
        rig.send(Kind.SCHEDULE, first, 0, 0, order, None, numbers)
        await turns()
        assert numbers == ran
    assert not rig.worker._engines[0].running.coming


async def test_what_it_returns_is_awaited_in_the_context_of_the_call(rig: Rig) -> None:
    rig.call(3, call_later, ["x", "y"])
    rig.call(5, leave_a_word_later, ["z"])
    await turns(20)
    values = [value for frame in rig.take() if frame[0] == Kind.ENDED for value in frame[4]]
    assert values == ["of the call x 3", "of the call y 4", "none z 5"]


class Waits:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Any:
        yield
        return "awaited"


def wait_for_it(_: int) -> Waits:
    return Waits()


def raise_it(name: str) -> None:
    kinds = {kind.__name__: kind for kind in (SystemExit, KeyboardInterrupt, LookupError)}
    raise kinds.get(name, asyncio.CancelledError)("on purpose")


async def test_a_plain_function_may_return_or_raise_anything(rig: Rig) -> None:
    rig.call(0, wait_for_it, [1])
    rig.call(1, raise_it, ["SystemExit", "KeyboardInterrupt", "LookupError", "cancelled"])
    await turns(20)
    ends = {
        number: (frame[3], payload)
        for frame in rig.take()
        if frame[0] == Kind.ENDED
        for number, payload in zip(frame[2], frame[4], strict=True)
    }
    assert ends[0] == (FINISHED, "awaited")
    errors = [rig.failure(ends[number][1]) for number in (1, 2, 3)]
    assert [type(error) for error in errors] == [SystemExit, KeyboardInterrupt, LookupError]
    assert "in raise_it" in str(errors[2].__cause__)
    assert "aioscheduler_workers" not in str(errors[2].__cause__)
    assert ends[4] == (CANCELLED, None)


async def test_functions_that_are_known_are_forgotten_with_their_definitions(rig: Rig) -> None:
    rig.call(0, give, [1, 2])
    await turns()
    runner = rig.worker._runner
    assert [known.__name__ for known in runner._known.values()] == ["give"]
    rig.send(Kind.DEFINE, wire.pack([FORGET, 99, []]), True)
    assert runner._known == {}
    rig.call(2, give, [3])
    await turns()
    assert rig.take()[-1] == [Kind.ENDED, 0, [2], FINISHED, [3]]


async def test_options_hold_for_plain_functions_too(rig: Rig) -> None:
    options = rig.shipper.take_options(Options(max_lateness=SECOND, name="late"))
    function = rig.shipper.take_function(abs)
    rig.tell_definitions()
    rig.now += 3 * SECOND
    for number, due in ((0, NOW), (1, NOW + 3 * SECOND)):
        rig.send(Kind.SCHEDULE, number, 0, due, function, [options], [-1])
    await turns(20)
    frames = [frame for frame in rig.take() if frame[0] == Kind.ENDED]
    late, on_time = sorted(frames, key=lambda frame: frame[2])
    assert late[2:4] == [[0], TOO_LATE]
    assert isinstance(rig.failure(late[4][0]), TooLate)
    assert on_time[2:] == [[1], FINISHED, [1]]


async def test_without_a_timeout_nothing_is_wrapped(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a plain function needs no asyncio task, though it may be retried or too late."""

    def wrap(*args: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(runner_module, "run_with", wrap)
    given = Options(name="a label", max_lateness=SECOND, retry=after(1))
    assert [field for field, value in given._asdict().items() if value is None] == ["timeout"]
    options = rig.shipper.take_options(given)
    functions = [rig.shipper.take_function(function) for function in (abs, give)]
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, NOW, functions, [options, options], [-1, 2])
    await turns()
    frames = [frame for frame in rig.take() if frame[0] == Kind.ENDED]
    values = {
        n: value
        for _, _, numbers, _, some in frames
        for n, value in zip(numbers, some, strict=True)
    }
    assert values == {0: 1, 1: 2}


async def test_its_own_failure_ends_the_worker(rig: Rig) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no room to tell it")

    rig.worker._runner._report = fail
    rig.call(0, abs, [-1])
    await rig.serving
    ((kind, text),) = rig.take()[-1:]
    assert kind == Kind.FATAL
    assert "no room to tell it" in text


# ---- further attempts


async def test_a_timed_task_that_will_start_again_is_forgotten(rig: Rig) -> None:
    for number in (0, 1):
        rig.schedule(number, fail(f"the\n{number}th"), retry=after(5 + 2 * number))
    await turns()
    _, *retries = rig.take()
    (retry,) = [frame for frame in retries if frame[0] == Kind.RETRY]
    assert retry[1:4] == [0, [0, 1], [5 * SECOND, 7 * SECOND]]
    assert retry[4] == [f"solo:fail: LookupError: the {n}th" for n in (0, 1)]
    assert all(engine.find(0) is None for engine in rig.worker._engines)
    again = wire.make_record(wire.More(attempt=2, failed=1, given=NOW))
    rig.schedule(1, fail("again"), due=NOW, record=again, retry=after(5))
    await turns()
    started, failed = rig.take()
    assert started == [Kind.ANNOUNCED, 0, [1]]
    assert failed[:4] == [Kind.ENDED, 0, [1], FAILED]
    error = rig.failure(failed[4][0])
    note = "it had 2 attempts, of 2 at most"
    assert error.__notes__ == [note]
    assert note in str(error.__cause__)


async def test_attempts_that_failed_count_and_not_those_that_their_worker_did_not_survive(
    rig: Rig,
) -> None:
    for number, (attempt, failed) in enumerate(((9, 0), (9, 1), (2, 1))):
        record = wire.make_record(wire.More(attempt=attempt, failed=failed, given=NOW))
        rig.schedule(number, fail("again"), record=record, retry=after(1))
    await turns()
    frames = rig.take()
    assert [frame[2] for frame in frames if frame[0] == Kind.RETRY] == [[0]]
    assert [frame[2] for frame in frames if frame[0] == Kind.ENDED] == [[1, 2]]


async def tell_times() -> tuple[int, float]:
    due = current_due()
    assert due is not None
    return current_attempt(), due.timestamp()


async def test_a_further_attempt_knows_the_due_time_that_the_task_was_given(rig: Rig) -> None:
    record = wire.make_record(wire.More(attempt=3, failed=2, given=7 * SECOND))
    rig.schedule(0, tell_times(), due=NOW - 5, record=record)
    await turns()
    assert rig.shipper.catalog.decode(rig.take()[-1][4][0]) == (3, 7.0)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


async def fail_oddly(large: bool) -> None:
    raise LookupError("x" * 10**6) if large else Unspeakable()


async def test_the_line_of_a_failure_is_short_whatever_the_failure_is(rig: Rig) -> None:
    name = "n" * 10**6
    options = rig.shipper.take_options(Options(name=name, retry=after(1)))
    rig.schedule(0, fail_oddly(large=True), record=options)
    rig.schedule(1, fail_oddly(large=False), retry=after(1))
    await turns()
    ((_, _, numbers, _, lines),) = [f for f in rig.take() if f[0] == Kind.RETRY]
    assert numbers == [0, 1]
    assert lines[0].startswith("nnn")
    assert len(lines[0]) <= 302
    assert "Unspeakable, whose str raises ValueError" in lines[1]


async def test_a_predicate_that_cannot_be_read_fails_its_tasks_alone(rig: Rig) -> None:
    rig.schedule(0, give(0), retry=Retry(_Unreadable()))
    rig.schedule(1, give(1), retry=after(1))
    await turns()
    first, second = [f for f in rig.take() if f[0] == Kind.ENDED]
    failed, returned = sorted((first, second), key=lambda frame: frame[2])
    assert failed[2:4] == [[0], UNREADABLE]
    assert repr(rig.failure(failed[4][0])) == "LookupError('no such module')"
    assert returned[2:] == [[1], FINISHED, [1]]


class _Unreadable:
    def __call__(self, error: BaseException) -> bool:
        return True

    def __reduce__(self) -> Any:
        return refuse_to_be_read, ()


def refuse_to_be_read() -> None:
    raise LookupError("no such module")


async def test_an_unreadable_or_cancelled_task_does_not_start_again(rig: Rig) -> None:
    options = rig.shipper.take_options(Options(retry=Retry(BaseException)))
    rig.send(Kind.SCHEDULE, 0, 0, 0, 999, [options], [1])
    rig.schedule(1, forever(), record=options)
    rig.schedule(2, resist(), record=options)
    rig.schedule(3, cancel_itself(), record=options)
    await turns()
    rig.send(Kind.CANCEL, 0, [1, 2])
    await turns()
    frames = rig.take()
    assert {frame[0] for frame in frames} == {Kind.ANNOUNCED, Kind.ENDED}
    ends = [(n, frame[3]) for frame in frames if frame[0] == Kind.ENDED for n in frame[2]]
    assert sorted(ends) == [(0, UNREADABLE), (1, CANCELLED), (2, FAILED), (3, CANCELLED)]


async def cancel_itself() -> None:
    raise asyncio.CancelledError


async def resist() -> None:
    try:
        await forever()
    except asyncio.CancelledError:
        raise LookupError("its clean-up fails") from None


durably = durable("test_runner.resist")(resist)
durable("test_runner.cancel_itself", retry=Retry(BaseException))(cancel_itself)


@pytest.mark.parametrize("how", ["close", "drain", "cancel"])
@pytest.mark.parametrize("has_store", [True, False])
async def test_an_error_of_a_durable_task_at_the_end_of_its_process_is_no_failure(
    make: Make, how: str, has_store: bool
) -> None:
    rig = make(has_store=has_store)
    await rig.start()
    rig.schedule(0, durably(), retry=after(1))
    await turns()
    rig.take()
    running = rig.worker._engines[0].running
    {"close": running.stop, "drain": running.give_up, "cancel": running.cancel}[how](0)
    await turns()
    frames = rig.take()
    if has_store and how == "drain":
        assert frames == []  # it is lost with its process
    elif has_store and how == "close":
        assert frames == [[Kind.ENDED, 0, [0], CANCELLED, [None]]]
    elif how == "drain":  # it is only in memory, and tried again
        assert [frame[0] for frame in frames] == [Kind.RETRY]
    else:
        ((kind, _, numbers, ending, _),) = frames
        assert (kind, numbers, ending) == (Kind.ENDED, [0], FAILED)


@pytest.mark.parametrize("has_store", [True, False])
async def test_a_cancellation_that_nobody_requested_says_where_it_was(
    make: Make, has_store: bool
) -> None:
    rig = make(has_store=has_store)
    await rig.start()
    rig.schedule(0, cancel_itself(), retry=after(1))
    await turns()
    *_, ending, (payload,) = rig.take()[-1]
    if has_store:
        text = text_in(payload)
        assert ending == UNASKED
        assert text.startswith("ended by a CancelledError that nobody asked for\n")
        assert "in cancel_itself" in text
        assert "aioscheduler_workers" not in text
    else:
        assert (ending, payload) == (CANCELLED, None)


@pytest.mark.parametrize("how", ["call", "await"])
async def test_a_callable_that_is_no_function_is_not_in_the_store(make: Make, how: str) -> None:
    rig = make(has_store=True)
    await rig.start()
    rig.call(0, Cancelling(how == "await"), [7])
    await turns()
    assert rig.take()[-1] == [Kind.ENDED, 0, [0], CANCELLED, [None]]


@pytest.mark.parametrize("order", [Order.FIFO, Order.LIFO])
async def test_a_queue_waits_for_a_task_that_starts_again(make: Make, order: Order) -> None:
    rig = make(order, (1,))
    await rig.start()
    rig.take()
    rig.schedule(0, fail("x" * 100_000), retry=after(1))
    await turns()
    rig.call(1, abs, [-1, -2])
    await turns()
    started, retry = rig.take()
    assert started == [Kind.ANNOUNCED, 0, [0]]
    assert retry[:4] == [Kind.RETRY, 0, [0], [SECOND]]
    await rig.pass_(0.9)
    assert rig.take() == []
    await rig.pass_(0.1)
    started, _, failed, *others = rig.take()
    assert started == [Kind.ANNOUNCED, 0, [0]]
    assert failed[:4] == [Kind.ENDED, 0, [0], FAILED]
    assert len(rig.failure(rig.pipe.blobs[0]).args[0]) == 100_000  # its arguments were kept
    started = [frame[2] for frame in others if frame[0] == Kind.ANNOUNCED]
    assert started == ([[1], [2]] if order is Order.FIFO else [[2], [1]])


async def test_the_announcement_of_the_next_attempt_comes_after_the_retry(
    make: Make,
) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.take()
    rig.schedule(0, fail("at once"), retry=after(0, attempts=3))
    await turns(30)
    kinds = [frame[0] for frame in rig.take()]
    assert kinds == [*(Kind.ANNOUNCED, Kind.RETRY) * 2, Kind.ANNOUNCED, Kind.ENDED]


@pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.WITHDRAW])
async def test_a_resting_task_can_be_dropped(make: Make, kind: Kind) -> None:
    rig = make(Order.FIFO, (1,))
    await rig.start()
    rig.schedule(0, fail("once"), retry=after(1))
    rig.call(1, abs, [-1])
    await turns()
    rig.take()
    rig.send(kind, 0, [0])
    await turns()
    frames = rig.take()
    assert [Kind.ENDED, 0, [0], CANCELLED, [None]] in frames
    assert frames[-1] == [Kind.ENDED, 0, [1], FINISHED, [1]]
    await rig.pass_(2)
    assert rig.take() == []


async def test_a_plain_function_that_runs_out_fails_as_a_coroutine_does(rig: Rig) -> None:
    function = rig.shipper.take_function(exhausted)
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, None, [1])
    await turns()
    error = rig.failure(rig.take()[-1][4][0])
    assert (type(error), str(error)) == (RuntimeError, "acting:exhausted raised StopIteration")


async def test_a_callable_that_is_mapped_again_starts_fresh(rig: Rig) -> None:
    function = rig.shipper.take_function(Counting())
    rig.tell_definitions()
    for first in (0, 3):
        rig.send(Kind.SCHEDULE, first, 0, 0, function, None, [1, 1, 1])
        await turns()
        assert rig.take()[-1][4] == [1, 2, 3]


def told(rig: Rig, value: object) -> wire.Record:
    """Return the record of a task with a captured value of the variable."""
    return rig.shipper.take_record(None, [1, value])


async def start_propagating(rig: Rig, *items: Any) -> None:
    rig.shipper.catalog.propagation = Propagation(items or (request_id,))
    await rig.start(rig.shipper.take_call(None, ()))
    assert rig.take() == [[Kind.READY]]


def ended(rig: Rig) -> list[Any]:
    """Return how the tasks have ended, by number."""
    ends = (frame[2:] for frame in rig.take() if frame[0] == Kind.ENDED)
    return sorted((n, end, p) for numbers, end, row in ends for n, p in zip(numbers, row))  # noqa: B905


async def test_what_came_with_a_task_is_there_in_its_first_step_alone(make: Make) -> None:
    rig = make()
    await start_propagating(rig)
    for number, word in enumerate(("ann", None, "bob")):
        record = None if word is None else told(rig, word)
        rig.schedule(number, look_later(), record=record)
    function = rig.shipper.take_function(look)
    rig.tell_definitions()
    rig.send(Kind.SCHEDULE, 3, 0, 0, function, [told(rig, "of a map")], [1, 2])
    await turns(20)
    decoded = [rig.shipper.catalog.decode(payload)[0] for _, _, payload in ended(rig)]
    assert decoded == ["ann", "-", "bob", "of a map", "of a map"]
    assert request_id.get() == "-"


@pytest.mark.parametrize("order", [Order.TIMED, Order.FIFO])
async def test_each_attempt_begins_with_what_came(make: Make, order: Order) -> None:
    rig = make(order)
    await start_propagating(rig)
    rig.schedule(0, look_again(1), record=told(rig, "ann"), retry=after(1))
    await turns(20)
    retried = rig.take()[-1]
    assert retried[0] == Kind.RETRY
    if order is Order.TIMED:
        again = wire.read_record(told(rig, "ann")).after_failure()
        options = rig.shipper.take_options(Options(retry=after(1)))
        record = wire.make_record(again._replace(options=options))
        rig.schedule(0, look_again(1), due=NOW + SECOND, record=record)
    await rig.pass_(1)
    await turns(20)
    ((number, ending, payload),) = ended(rig)
    assert (number, ending) == (0, FINISHED)
    assert rig.shipper.catalog.decode(payload)[1][0] == "ann"


async def test_what_cannot_be_read_or_restored_fails_its_task_alone(make: Make) -> None:
    rig = make()
    await start_propagating(rig, (request_id.get, refuse_to_restore))
    rig.schedule(0, give(0), record=told(rig, Unreadable()), retry=after(1))
    rig.schedule(1, give(1), record=told(rig, "refused"))
    rig.schedule(2, give(2), record=told(rig, "accepted"))
    await turns(20)
    unread, refused, good = ended(rig)
    assert good == (2, FINISHED, 2)
    error = rig.failure(unread[2])
    assert str(error) == "this cannot be read"
    assert "were read" in error.__notes__[0]
    error = rig.failure(refused[2])
    assert str(error) == "refused cannot be restored"
    assert "to restore what came with the task" in error.__notes__[0]


# ---- durable functions unknown to the host, and arguments that do not fit


@durable("late runner", retry=Retry(on=LookupError, attempts=2, wait_initial=3, wait_jitter=0))
async def late(word: str) -> str:
    if word == "fails":
        raise LookupError(word)
    return f"{word} {current_attempt()}"


def send_late(rig: Rig, first: int, name: str, where: str, rows: list[Any]) -> None:
    function = LateBound(name, where).pickled()
    rig.send(Kind.SCHEDULE, first, 0, 0, function, None, [wire.pack([row]) for row in rows])


async def test_a_function_unknown_to_the_host_runs_with_the_options_it_is_registered_with(
    rig: Rig,
) -> None:
    send_late(rig, 0, "late runner", "no.such.module:late", ["works", "fails"])
    await turns()
    frames = rig.take()
    assert [Kind.ENDED, 0, [0], FINISHED, ["works 1"]] in frames
    (retry,) = (frame for frame in frames if frame[0] == Kind.RETRY)
    assert retry[1:4] == [0, [1], [3 * SECOND]]


async def test_its_task_keeps_its_own_label(rig: Rig) -> None:
    options = rig.shipper.take_options(Options(name="my label"))
    rig.tell_definitions()
    function = LateBound("late runner", "no.such.module:late").pickled()
    rig.send(Kind.SCHEDULE, 0, 0, 0, function, [options], [wire.pack(["fails"])])
    await turns()
    (retry,) = (frame for frame in rig.take() if frame[0] == Kind.RETRY)
    assert retry[4][0].startswith("my label: ")


async def test_a_name_that_nobody_has_registered_is_reported_as_unknown(rig: Rig) -> None:
    send_late(rig, 0, "late nobody", "no.such.module:late", ["word"])
    rig.schedule(1, give(1))
    await turns()
    frames = [frame for frame in rig.take() if frame[0] == Kind.ENDED]
    (failed,) = (frame for frame in frames if frame[3] == UNKNOWN)
    assert failed[2] == [0]
    assert "@durable('late nobody')" in str(rig.failure(failed[4][0]))
    assert "UnknownFunction" in text_in(failed[4][0])
    assert [Kind.ENDED, 0, [1], FINISHED, [1]] in frames


@pytest.mark.parametrize("text", ["import no_such_module_at_all", "raise SystemExit(3)"])
async def test_a_module_that_cannot_be_imported_is_unreadable(
    rig: Rig, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "late_and_broken.py").write_text(text)
    send_late(rig, 0, "late broken", "late_and_broken:late", ["word"])
    await turns()
    assert [frame[2:4] for frame in rig.take() if frame[0] == Kind.ENDED] == [[[0], UNREADABLE]]


def count_plainly(word: str) -> None: ...


@pytest.mark.parametrize(("function", "ending"), [(give, UNREADABLE), (count_plainly, FAILED)])
async def test_arguments_that_do_not_fit_are_unreadable_and_not_tried_again(
    rig: Rig, function: Any, ending: int
) -> None:
    """With a plain function that cannot be known: it may have raised the error in C."""
    number = rig.shipper.take_function(function)
    options = rig.shipper.take_options(Options(retry=after(0)))
    rig.tell_definitions()
    kept = None if ending == FAILED else options
    rig.send(Kind.SCHEDULE, 0, 0, 0, number, [kept], [wire.pack([1, 2])])
    await turns()
    frames = rig.take()
    assert [frame[0] for frame in frames] == [Kind.ANNOUNCED, Kind.ENDED]
    assert frames[1][2:4] == [[0], ending]
    assert "positional argument" in str(rig.failure(frames[1][4][0]))


async def raise_type_error() -> None:
    raise TypeError("its own")


async def test_a_type_error_of_the_tasks_own_is_tried_again(rig: Rig) -> None:
    rig.schedule(0, raise_type_error(), retry=after(0))
    await turns()
    assert [frame[0] for frame in rig.take()] == [Kind.ANNOUNCED, Kind.RETRY]
