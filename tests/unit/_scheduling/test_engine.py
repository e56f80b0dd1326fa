from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turning import turns

from aioscheduler._scheduling.alarm import Alarm
from aioscheduler._scheduling.clock import LATEST, SECOND
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.lateness import Recorder
from aioscheduler._scheduling.order import Order
from aioscheduler._scheduling.pace import MAX_SLICE, SLICE_TIME


class Clock:
    now = 100 * SECOND

    def __call__(self) -> int:
        return self.now


class Runner:
    """Runs coroutine functions, and keeps a log."""

    def __init__(self, *, hold: bool = False) -> None:
        self.log: list[Any] = []
        self.slices: list[list[int]] = []
        self.held: list[Callable[[], None]] = []
        self._hold = hold

    def launch(self, engine: Engine[Any], numbers: list[int], dues: list[int]) -> None:
        self.slices.append(numbers)
        if self._hold:
            self.held.append(lambda: engine.run(numbers, dues))
        else:
            engine.run(numbers, dues)

    async def execute(self, engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        try:
            await entry()
            self.log.append(number)
        except asyncio.CancelledError:
            self.log.append(("cancelled", number))
        engine.ended(number)

    def withdrawn(self, engine: Engine[Any], number: int, entry: Any) -> None:
        self.log.append(("withdrawn", number))

    def broken(self, engine: Engine[Any], error: Exception, launched: dict[int, Any]) -> None:
        self.log.append((repr(error), sorted(launched)))


async def nothing() -> None:
    pass


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


class Stand:
    """An engine with a clock that is set by hand."""

    def __init__(
        self, order: Order = Order.TIMED, *, hold: bool = False, max_running: int | None = None
    ) -> None:
        self.clock = Clock()
        self.runner = Runner(hold=hold)
        self.recorder = Recorder()
        self.engine: Engine[Any] = Engine(
            0, order, self.runner, self.recorder, self.clock, max_running=max_running
        )
        self.alarm = Alarm(asyncio.get_running_loop(), self.clock)

    def start(self) -> None:
        self.engine.start(asyncio.get_running_loop(), self.alarm)

    async def pass_(self, seconds: float) -> None:
        """Let time pass, and the alarm notice."""
        self.clock.now += int(seconds * SECOND)
        self.alarm._ring()
        await turns()


async def test_nothing_runs_before_its_time_and_ties_run_in_order() -> None:
    stand = Stand()
    start = stand.clock.now
    for number, after in enumerate([3, 1, 2, 1, 1]):
        stand.engine.add(number, start + after * SECOND, nothing)
    stand.start()
    await turns()
    assert stand.runner.log == []
    await stand.pass_(0.999)
    assert stand.runner.log == []
    await stand.pass_(0.001)
    assert stand.runner.log == [1, 3, 4]
    await stand.pass_(10)
    assert stand.runner.log == [1, 3, 4, 2, 0]
    assert (stand.engine.pending, stand.engine.running) == (0, {})


async def test_lateness_is_recorded_from_the_due_time_to_the_start() -> None:
    stand = Stand()
    stand.start()
    for number, after in enumerate([0, 0, 5]):
        stand.engine.add(number, stand.clock.now + after * SECOND, nothing)
    await stand.pass_(1)
    assert stand.recorder.take()[:2] == (SECOND, 2 * SECOND)
    await stand.pass_(4)
    assert stand.recorder.take() == (0, 0, [1])
    stand.alarm.stop()


async def test_lateness_counts_the_steps_of_those_before() -> None:
    """Whether a step is taken at once or, before 3.12, in the loop's next turn."""
    stand = Stand()

    async def slow() -> None:
        stand.clock.now += SECOND

    for number in range(4):
        stand.engine.add(number, stand.clock.now, slow)
    stand.start()
    await turns(40)
    assert stand.runner.log == [0, 1, 2, 3]
    most, total, _ = stand.recorder.take()
    assert most == 3 * SECOND
    assert total == (0 + 1 + 2 + 3) * SECOND
    stand.alarm.stop()


async def test_a_queue_knows_no_lateness() -> None:
    stand = Stand(Order.FIFO)
    stand.start()
    stand.engine.add(0, 0, nothing)
    await turns()
    assert stand.runner.log == [0]
    assert stand.recorder.take() == (0, 0, [])


async def test_what_comes_later_may_be_due_earlier() -> None:
    stand = Stand()
    stand.start()
    stand.engine.add(0, stand.clock.now + 20 * SECOND, nothing)
    await turns()
    stand.engine.add(1, stand.clock.now + SECOND, nothing)
    stand.engine.add(2, stand.clock.now, nothing)
    await turns()
    assert stand.runner.log == [2]
    await stand.pass_(1)
    assert stand.runner.log == [2, 1]


@pytest.mark.parametrize(
    ("order", "expected"), [(Order.FIFO, [0, 1, 2, 3]), (Order.LIFO, [3, 2, 1, 0])]
)
async def test_a_queue_runs_one_at_a_time(order: Order, expected: list[int]) -> None:
    stand = Stand(order)
    gates = [asyncio.Event() for _ in range(4)]
    for number, gate in enumerate(gates):
        stand.engine.add(number, 0, gate.wait)
    stand.start()
    for done, number in enumerate(expected):
        await turns()
        assert list(stand.engine.running) == [number]
        assert stand.engine.pending == 3 - done
        gates[number].set()
    await turns()
    assert stand.runner.log == expected
    stand.engine.add(9, 0, nothing)  # it wakes again after being empty
    await turns()
    assert stand.runner.log[-1] == 9


async def test_cancel_in_every_state() -> None:
    stand = Stand(hold=True)
    engine, runner = stand.engine, stand.runner
    later = stand.clock.now + SECOND
    for number, entry in enumerate([nothing, nothing, forever, forever, nothing]):
        engine.add(number, later if number == 0 else 0, entry)
    assert engine.cancel(4)  # before start
    stand.start()
    await turns()
    assert engine.cancel(0)  # waiting
    assert engine.find(1) is not None
    assert engine.cancel(1)  # launched, not yet run
    runner.held.pop()()
    assert engine.cancel(2)  # handed to asyncio, perhaps before its first step
    await turns()
    assert engine.cancel(3)  # running
    await turns()
    assert not any(engine.cancel(number) for number in range(6))
    assert sorted(str(entry) for entry in runner.log) == sorted(
        [
            "('withdrawn', 4)",
            "('withdrawn', 0)",
            "('withdrawn', 1)",
            str(next(e for e in runner.log if e[1] == 2)),  # with either call, but only once
            "('cancelled', 3)",
        ]
    )
    assert (engine.pending, engine.running) == (0, {})


@pytest.mark.parametrize("order", list(Order))
async def test_what_was_launched_and_has_not_begun_can_be_withdrawn(order: Order) -> None:
    stand = Stand(order, hold=True)
    engine, runner = stand.engine, stand.runner
    for number in range(3):
        engine.add(number, 0, nothing)
    stand.start()
    await turns()
    launched = runner.slices[0]
    first = launched[0]
    assert engine.withdraw(first) is None  # but not without `launched`
    assert [sorted(numbers) for numbers in engine.numbers()] == [
        sorted({0, 1, 2} - set(launched)),
        sorted(launched),
        [],
    ]
    assert engine.withdraw(first, launched=True) is nothing
    assert engine.withdraw(first, launched=True) is None
    while runner.held:
        runner.held.pop()()
        await turns()
    assert sorted(runner.log) == sorted({0, 1, 2} - {first})
    assert engine.numbers() == ([], [], [])


async def test_a_million_due_at_once_would_run_in_slices() -> None:
    stand = Stand()
    for number in range(2000):
        stand.engine.add(number, 0, nothing)
    stand.start()
    seen = []
    while len(stand.runner.log) < 2000:
        await asyncio.sleep(0)  # anything else gets its turn in between
        seen.append(len(stand.runner.log))
    assert max(map(len, stand.runner.slices)) <= MAX_SLICE
    assert len(seen) >= 2000 // MAX_SLICE
    assert stand.runner.log == list(range(2000))


async def test_slices_of_slow_tasks_are_short() -> None:
    stand = Stand()

    async def slow() -> None:
        stand.clock.now += SLICE_TIME

    for number in range(200):
        stand.engine.add(number, 0, slow)
    stand.start()
    while len(stand.runner.log) < 200:
        await asyncio.sleep(0)
    assert stand.runner.log == list(range(200))
    assert max(map(len, stand.runner.slices[4:])) <= 2


async def test_stop_gives_back_what_has_not_run() -> None:
    stand = Stand(hold=True)
    stand.engine.add(0, 0, nothing)
    stand.start()
    await turns()
    stand.engine.add(1, stand.clock.now + SECOND, nothing)
    assert stand.engine.stop() == ({0: nothing}, {1: nothing})
    stand.runner.held.pop()()
    await stand.pass_(5)
    assert stand.runner.log == []
    assert stand.engine.find(0) is None


async def test_the_alarm_looks_again_after_a_second_at_the_most() -> None:
    """The clock may have been set meanwhile."""
    clock = Clock()
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, clock)
    timer: Any = alarm._timer
    rung: list[int] = []
    alarm.set(lambda: rung.append(clock.now), clock.now + 3600 * SECOND)
    assert timer.handle is not None
    assert timer.handle.when() - loop.time() <= 1.001
    alarm._ring()
    assert rung == []
    assert timer.handle is not None
    clock.now += 3600 * SECOND
    alarm._ring()
    assert rung == [clock.now]
    assert timer.handle is None  # no sleepers: it does not wake the loop
    alarm.set(rung.clear, clock.now)
    alarm.set(rung.clear, None)
    alarm.stop()
    assert timer.handle is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a timerfd")
async def test_the_kernels_timer_rings_when_the_clock_says_so() -> None:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, time.time_ns)
    rung = loop.create_future()
    due = time.time_ns() + 2_000_000
    alarm.set(lambda: rung.set_result(time.time_ns()), due)
    alarm.set(print, LATEST)
    assert await rung >= due
    alarm.set(print, None)
    past = loop.create_future()
    alarm.set(lambda: past.set_result(None), 0)
    await past
    alarm.stop()
    alarm.set(print, time.time_ns())  # after stop: nothing happens


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a timerfd")
def test_the_kernel_says_what_is_wrong() -> None:
    from aioscheduler._scheduling.timerfd import TimerFd

    timer = TimerFd()
    assert not timer.read()
    timer.close()
    timer.close()
    with pytest.raises((OSError, ValueError), match="file descriptor"):
        timer.set(1)


async def test_without_a_kernel_timer_the_loops_own_serves(monkeypatch: Any) -> None:
    def refuse(self: object, monotonic: bool) -> None:
        raise OSError("not in this sandbox")

    monkeypatch.setattr("aioscheduler._scheduling.timerfd.TimerFd.__init__", refuse)
    monkeypatch.setattr("aioscheduler._scheduling.timerfd.TimerFd.__del__", lambda self: None)
    alarm = Alarm(asyncio.get_running_loop(), time.time_ns)
    rung = asyncio.get_running_loop().create_future()
    alarm.set(lambda: rung.set_result(time.time_ns()), due := time.time_ns() + 2_000_000)
    assert await rung >= due
    alarm.stop()


async def test_an_entry_that_is_not_ready_and_is_cancelled_makes_room() -> None:
    """Found by the simulation: a queue stood still for ever."""
    stand = Stand(Order.FIFO)
    launch = stand.runner.launch
    stand.runner.launch = lambda engine, numbers, dues: engine.run([], [])  # type: ignore[method-assign]
    stand.start()
    stand.engine.add(0, 0, nothing)
    stand.engine.add(1, 0, nothing)
    await turns()
    stand.runner.launch = launch  # type: ignore[method-assign]
    assert stand.runner.log == []
    assert stand.engine.cancel(0)
    await turns()
    assert stand.runner.log == [("withdrawn", 0), 1]
    stand.alarm.stop()


async def test_entries_that_cannot_be_queued_leave_nothing_behind() -> None:
    stand = Stand()
    stand.start()
    wrong: Any = [0, "soon", 0]
    with pytest.raises(TypeError):
        stand.engine.add_many([0, 1, 2], wrong, [nothing] * 3)
    assert stand.engine.pending == len(stand.engine._queue) == 0
    stand.engine.add_many([3, 4], [0, 0], [nothing] * 2)
    await turns()
    assert stand.runner.log == [3, 4]


@pytest.mark.parametrize(
    ("order", "ahead", "max_running"),
    [(Order.TIMED, 1, None), (Order.FIFO, 4, None), (Order.TIMED, 1, 4), (Order.TIMED, 1, 1)],
)
async def test_nothing_begins_while_the_loop_seems_to_be_ending(
    order: Order, ahead: int, max_running: int | None
) -> None:
    """Launched entries, the rest of a slice, and later ones all wait."""
    stand = Stand(order, max_running=max_running)
    stand.engine.ahead = ahead
    loop = asyncio.get_running_loop()

    begun: list[int] = []

    def begin(entry: object) -> Context:
        stand.clock.now += 2 * SLICE_TIME
        begun.append(len(begun))
        if len(begun) == 2:
            stand.engine.was_cancelled(77)
        return copy_context()

    stand.engine._context_of = begin
    stand.start()
    stand.engine.add_many(range(4), stand.clock.now, [nothing] * 4)
    await turns(40)
    assert begun == stand.runner.log == [0, 1]
    assert stand.engine.pending == 2
    stand.engine._hold_back._look(loop)  # this test is not cancelled: the loop goes on
    await turns(40)
    assert stand.runner.log == [0, 1, 2, 3]
    stand.alarm.stop()


async def fail() -> None:
    raise LookupError


class RestingCrew(Runner):
    """Lets failed entries rest for a second, and then start again."""

    async def execute(self, engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        try:
            await entry()
        except LookupError:
            self.log.append(("failed", number))
            engine.rest(number, nothing, stand_clock(engine) + SECOND)
        else:
            self.log.append(number)
            engine.ended(number)


def stand_clock(engine: Engine[Any]) -> int:
    return engine._clock()


def resting(order: Order, *, hold: bool = False) -> Stand:
    stand = Stand(order)
    stand.runner = RestingCrew(hold=hold)
    stand.engine = Engine(0, order, stand.runner, stand.recorder, stand.clock)
    return stand


@pytest.mark.parametrize("order", [Order.FIFO, Order.LIFO])
async def test_nothing_overtakes_what_rests_at_the_head(order: Order) -> None:
    stand = resting(order)
    stand.engine.add(0, 0, fail)
    stand.start()
    await turns()
    stand.engine.add(1, 0, nothing)
    await turns()
    assert (stand.engine.pending, stand.engine.find(0)) == (2, nothing)
    await stand.pass_(0.999)
    assert stand.runner.log == [("failed", 0)]
    await stand.pass_(0.001)
    assert stand.runner.log == [("failed", 0), 0, 1]
    stand.alarm.stop()


async def test_what_rests_can_be_withdrawn_or_cancelled_in_every_state() -> None:
    stand = resting(Order.FIFO)
    for number in range(3):
        stand.engine.add(number, 0, fail if number < 2 else nothing)
    stand.start()
    await turns()
    assert stand.engine.withdraw(0) is nothing  # while it rests
    await turns()
    assert stand.runner.log == [("failed", 0), ("failed", 1)]
    stand.runner._hold = True
    await stand.pass_(1)
    assert stand.engine.cancel(1)  # while it is announced
    await turns()
    assert stand.runner.log[2:] == [("withdrawn", 1)]
    stand.runner._hold = False
    stand.runner.held.pop()()
    await turns()
    assert stand.runner.log[3:] == [2]
    assert stand.engine.pending == len(stand.engine._queue) == 0
    stand.alarm.stop()


async def test_a_stop_gives_back_what_rests() -> None:
    stand = resting(Order.FIFO)
    stand.engine.add(0, 0, fail)
    stand.start()
    await turns()
    assert stand.engine.stop() == ({}, {0: nothing})
    await stand.pass_(5)
    assert stand.runner.log == [("failed", 0)]
    stand.alarm.stop()


async def test_a_queue_may_launch_ahead_and_still_runs_one_at_a_time() -> None:
    stand = Stand(Order.FIFO, hold=True)
    stand.engine.ahead = 3
    gates = [asyncio.Event() for _ in range(5)]
    for number, gate in enumerate(gates):
        stand.engine.add(number, 0, gate.wait)
    stand.start()
    await turns()
    assert stand.runner.slices == [[0, 1, 2]]
    stand.runner.held.pop()()
    for number in range(3):
        await turns()
        assert list(stand.engine.running) == [number]
        # The next ones are launched when the last of these has begun.
        assert len(stand.runner.slices) == 1 + (number == 2)
        if number != 2:
            gates[number].set()
    assert stand.runner.slices[1] == [3, 4]
    stand.runner.held.pop()()
    await turns()
    assert list(stand.engine.running) == [2]
    for gate in gates:
        gate.set()
    await turns(20)
    assert stand.runner.log == [0, 1, 2, 3, 4]
    stand.alarm.stop()


async def test_what_ends_at_once_needs_no_task() -> None:
    stand = Stand()
    word: ContextVar[str] = ContextVar("word", default="")
    seen: list[tuple[int, str]] = []

    def execute(engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        seen.append((number, word.get()))
        word.set("of another")

    stand.runner.execute = execute  # type: ignore[method-assign, assignment]
    stand.start()
    stand.engine.add_many(range(3), 0, [nothing] * 3)
    await turns()
    assert seen == [(0, ""), (1, ""), (2, "")]
    assert (stand.engine.pending, stand.engine.running) == (0, {})
    assert stand.recorder.take()[2]
    stand.alarm.stop()


@pytest.mark.parametrize("max_running", [None, 1, 2])
async def test_a_forked_copy_begins_nothing_more(max_running: int | None) -> None:
    stand = Stand(max_running=max_running)

    def execute(engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        stand.runner.log.append(number)
        engine.drop_slice()

    stand.runner.execute = execute  # type: ignore[method-assign, assignment]
    stand.start()
    stand.engine.add_many(range(3), 0, [nothing] * 3)
    await asyncio.sleep(0)  # a forked copy gets no other turn
    assert stand.runner.log == [0]
    stand.alarm.stop()


async def test_what_was_discarded_comes_back_at_its_new_time() -> None:
    stand = Stand()
    stand.start()
    start = stand.clock.now
    stand.engine.add_many(range(2), start + SECOND, [nothing, nothing])
    assert stand.engine.withdraw(0) is nothing
    stand.engine.add_again([0], start + 2 * SECOND, [nothing])
    await stand.pass_(1)
    assert stand.runner.log == [1]
    assert stand.engine.withdraw(0) is nothing
    stand.engine.add_again([0], [start], [nothing])
    await turns()
    assert stand.runner.log == [1, 0]
    await stand.pass_(5)
    assert stand.runner.log == [1, 0]


async def test_a_slice_launched_in_two_parts_gets_room_for_both() -> None:
    """A part comes late, when its payload is here, and the next is launched meanwhile."""
    stand = Stand(Order.FIFO, hold=True)
    stand.engine.ahead = 3
    stand.start()
    stand.engine.add(0, 0, nothing)
    await turns()
    stand.engine.run([], [])  # no launched entry is ready
    for number in (1, 2):
        stand.engine.add(number, 0, nothing)
    await turns()
    late, rest = stand.runner.held
    late()
    rest()
    await turns()
    assert stand.runner.log == [0, 1, 2]


# ---- a limit on running entries


class PlainCrew(Runner):
    """Runs plain functions, which end as soon as they begin."""

    def execute(self, engine: Engine[Any], number: int, entry: Any, due: int) -> None:  # type: ignore[override]
        self.log.append(number)
        entry()


def limited(max_running: int, *, hold: bool = False, plain: bool = False) -> Stand:
    stand = Stand(max_running=max_running)
    stand.runner = PlainCrew(hold=hold) if plain else Runner(hold=hold)
    stand.engine = Engine(
        0, Order.TIMED, stand.runner, stand.recorder, stand.clock, max_running=max_running
    )
    stand.start()
    return stand


async def test_what_is_due_beyond_the_limit_waits_in_the_order_of_due_times() -> None:
    stand = limited(2)
    engine, start = stand.engine, stand.clock.now
    gates = [asyncio.Event() for _ in range(6)]
    for number, after in enumerate([5, 4, 3, 2, 1]):
        engine.add(number, start + after, gates[number].wait)
    await stand.pass_(1)
    assert sorted(engine.running) == [3, 4]
    assert engine.pending == len(engine.waiting) == 3  # not launched: the runner does not know them
    engine.add(5, start, gates[5].wait)  # added later, and due earlier
    gates[3].set()
    await turns()
    assert sorted(engine.running) == [4, 5]
    for gate in gates:
        gate.set()
    await turns(30)
    assert stand.runner.log[0] == 3
    assert [number for number in stand.runner.log if number < 3] == [2, 1, 0]
    assert (engine.pending, engine.running) == (0, {})


async def test_without_room_the_engine_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = limited(1)
    gate = asyncio.Event()
    stand.engine.add(0, stand.clock.now, gate.wait)
    await turns()
    looks: list[int] = []
    launch_due = stand.engine._launch_due

    def look() -> None:
        looks.append(stand.clock.now)
        launch_due()

    monkeypatch.setattr(stand.engine, "_launch_due", look)
    stand.engine.add(1, stand.clock.now, nothing)
    stand.engine.add(2, stand.clock.now + SECOND, nothing)
    await turns(50)
    await stand.pass_(2)
    assert (looks, stand.alarm._sleepers) == ([], {})
    gate.set()
    await turns(20)
    assert stand.runner.log == [0, 1, 2]
    stand.engine.add(3, stand.clock.now + SECOND, nothing)
    looks.clear()
    await stand.pass_(0.999)
    assert stand.runner.log == [0, 1, 2]
    await stand.pass_(0.001)
    assert stand.runner.log == [0, 1, 2, 3]


async def test_with_room_the_next_entry_starts_on_time() -> None:
    stand = limited(2)
    stand.engine.add(0, stand.clock.now, forever)
    stand.engine.add(1, stand.clock.now + SECOND, nothing)
    await turns()
    (wakes_at,) = stand.alarm._sleepers.values()
    assert 0 < wakes_at - stand.clock.now <= SECOND
    await stand.pass_(1)
    assert stand.runner.log == [1]
    stand.engine.cancel(0)
    await turns()


async def test_a_cancelled_entry_takes_up_room_until_it_has_ended() -> None:
    stand = limited(1)
    cleaned = asyncio.Event()

    async def clean_up() -> None:
        try:
            await forever()
        finally:
            await cleaned.wait()

    stand.engine.add(0, 0, clean_up)
    stand.engine.add(1, 1, nothing)
    await turns()
    assert stand.engine.cancel(0)
    await turns()
    assert stand.runner.log == []
    cleaned.set()
    await turns()
    assert stand.runner.log == [("cancelled", 0), 1]


async def test_an_announced_entry_takes_up_room() -> None:
    stand = limited(3, hold=True)
    stand.engine.add_many(range(5), 0, [forever] * 5)
    await turns()
    assert stand.runner.slices == [[0, 1, 2]]
    assert stand.engine.cancel(1)  # this makes room, but no entry is launched before the rest runs
    await turns()
    stand.runner.held.pop()()
    await turns()
    assert stand.runner.slices == [[0, 1, 2], [3]]
    assert sorted(stand.engine.running) == [0, 2]
    stand.runner.held.pop()()
    assert sorted(stand.engine.running) == [0, 2, 3]
    assert stand.engine.stop() == ({}, {4: forever})
    for number in (0, 2, 3):
        stand.engine.cancel(number)
    await turns()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_entry_that_is_not_ready_takes_up_room(cancelled: bool) -> None:
    stand = limited(1)
    launch = stand.runner.launch

    def leave_out(engine: Engine[Any], numbers: list[int], dues: list[int]) -> None:
        stand.runner.launch = launch  # type: ignore[method-assign]
        engine.run([], [])

    stand.runner.launch = leave_out  # type: ignore[method-assign]
    stand.engine.add_many(range(2), 0, [nothing] * 2)
    await turns()
    assert (stand.runner.log, stand.engine.pending) == ([], 2)
    if cancelled:
        stand.engine.cancel(0)
    else:
        stand.engine.ready(0, 0)
    await turns()
    assert stand.runner.log == [("withdrawn", 0) if cancelled else 0, 1]


@pytest.mark.parametrize("max_running", [1, 8])
async def test_what_ends_at_once_costs_no_turn(max_running: int) -> None:
    stand = limited(max_running, plain=True)
    stand.engine.add_many(range(1000), 0, [lambda: None] * 1000)
    seen = [0]
    while len(stand.runner.log) < 1000:
        await asyncio.sleep(0)  # anything else gets its turn in between
        seen.append(len(stand.runner.log))
    assert stand.runner.log == list(range(1000))
    assert max(map(len, stand.runner.slices)) == max_running
    by_turn = [after - before for before, after in itertools.pairwise(seen)]
    assert MAX_SLICE / 2 < max(by_turn) <= MAX_SLICE
    await turns()
    assert stand.recorder.take()[:2] == (stand.clock.now, 1000 * stand.clock.now)


async def test_what_ends_at_once_and_takes_long_gives_the_loop_its_turn() -> None:
    stand = limited(1, plain=True)

    def slow() -> None:
        stand.clock.now += SLICE_TIME

    stand.engine.add_many(range(20), 0, [slow] * 20)
    seen = [0]
    while len(stand.runner.log) < 20:
        await asyncio.sleep(0)
        seen.append(len(stand.runner.log))
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 2


async def test_what_is_more_than_a_slice_runs_together() -> None:
    stand = limited(10 * MAX_SLICE)
    stand.engine.add_many(range(12 * MAX_SLICE), 0, [forever] * 12 * MAX_SLICE)
    await turns(40)
    assert len(stand.engine.running) == 10 * MAX_SLICE
    assert max(map(len, stand.runner.slices)) == MAX_SLICE
    for number in list(stand.engine.running):
        stand.engine.cancel(number)
    stand.engine.stop()
    await turns()


async def test_an_engine_that_fails_does_not_go_on_at_once() -> None:
    stand = limited(1, plain=True)
    contexts = iter([copy_context(), None, copy_context()])

    def context_of(entry: object) -> Context:
        context = next(contexts)
        if context is None:
            raise MemoryError
        return context

    stand.engine._context_of = context_of
    stand.engine.add_many(range(3), 0, [lambda: None] * 3)
    await asyncio.sleep(0)
    assert stand.runner.log == [0, ("MemoryError()", [1])]
    await turns()
    assert stand.runner.log[2:] == [2]


async def test_what_rests_at_once_is_followed_by_nothing() -> None:
    stand = Stand(Order.LIFO)
    stand.runner = PlainCrew()
    stand.engine = Engine(0, Order.LIFO, stand.runner, stand.recorder, stand.clock)

    def rest() -> None:
        stand.engine.rest(1, lambda: None, stand.clock.now + SECOND)

    stand.engine.add_many(range(3), 0, [lambda: None, rest, lambda: None])
    stand.start()
    await turns()
    assert stand.runner.slices == [[2], [1]]
    await stand.pass_(1)
    assert stand.runner.log == [2, 1, 1, 0]
    stand.alarm.stop()


class Player(Runner):
    """Plays against a model of a limited engine: which entries may start, in which order.

    Attributes:
        due: The due times of waiting entries, by number.
        gates: What running entries wait for; None: they end at once.
    """

    def __init__(self, max_running: int) -> None:
        super().__init__()
        self.max_running = max_running
        self.due: dict[int, int] = {}
        self.gates: dict[int, asyncio.Event | None] = {}
        self.begun: set[int] = set()

    def execute(self, engine: Engine[Any], number: int, entry: Any, due: int) -> Any:
        assert self.due[number] == due <= stand_clock(engine)
        assert (due, number) == min((due, number) for number, due in self.due.items())
        del self.due[number]
        self.begun.add(number)
        assert len(self.begun) <= self.max_running
        gate = self.gates[number]
        if gate is None:
            self.begun.remove(number)
            return None
        return self._follow(engine, number, gate)

    async def _follow(self, engine: Engine[Any], number: int, gate: asyncio.Event) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            if number % 2:  # it does not end at once
                await asyncio.sleep(0)
        self.begun.remove(number)
        engine.ended(number)

    def withdrawn(self, engine: Engine[Any], number: int, entry: Any) -> None:
        self.due.pop(number, None)
        self.begun.discard(number)

    def broken(self, engine: Engine[Any], error: Exception, launched: dict[int, Any]) -> None:
        raise error


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-3, 3), st.booleans()),
        st.tuples(st.sampled_from(("end", "cancel", "withdraw", "move")), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.integers(0, 3)),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)


@given(max_running=st.integers(1, 4), steps=STEPS)
def test_an_engine_with_a_limit_does_as_its_model(
    max_running: int, steps: list[tuple[Any, ...]]
) -> None:
    async def play() -> None:
        stand = Stand(max_running=max_running)
        player = stand.runner = Player(max_running)
        engine = stand.engine = Engine(
            0, Order.TIMED, player, stand.recorder, stand.clock, max_running=max_running
        )
        stand.start()
        for word, *detail in steps:
            if word == "add":
                number, due = len(player.gates), stand.clock.now + detail[0] * SECOND
                player.gates[number] = asyncio.Event() if detail[1] else None
                player.due[number] = due
                engine.add(number, due, nothing)
            elif word == "pass":
                stand.clock.now += detail[0] * SECOND
                stand.alarm._ring()
                await turns()
            elif word == "turn":
                await asyncio.sleep(0)
            elif word == "end" and (gate := player.gates.get(detail[0])):
                gate.set()
            elif word == "cancel":
                player.due.pop(detail[0], None)
                engine.cancel(detail[0])
            elif engine.withdraw(detail[0]) is not None:
                del player.due[detail[0]]
                if word == "move":
                    player.due[detail[0]] = due = stand.clock.now + SECOND
                    engine.add_again([detail[0]], due, [nothing])
        await turns()
        now_due = [number for number, due in player.due.items() if due <= stand.clock.now]
        assert len(player.begun) == max_running or not now_due
        while player.due or player.begun:
            for number in list(player.begun):
                engine.cancel(number)
            stand.clock.now += SECOND
            stand.alarm._ring()
            await turns()
        assert engine.pending == len(engine.running) == len(engine._queue) == 0
        stand.alarm.stop()

    asyncio.run(asyncio.wait_for(play(), 30))
