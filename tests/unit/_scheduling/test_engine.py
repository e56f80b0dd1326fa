from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

import pytest
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


class Crew:
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

    def __init__(self, order: Order = Order.TIMED, *, hold: bool = False) -> None:
        self.clock = Clock()
        self.crew = Crew(hold=hold)
        self.recorder = Recorder()
        self.engine: Engine[Any] = Engine(0, order, self.crew, self.recorder, self.clock)
        self.alarm = Alarm(asyncio.get_running_loop(), self.clock)

    def start(self) -> None:
        self.engine.start(asyncio.get_running_loop(), self.alarm)

    async def pass_(self, seconds: float) -> None:
        """Lets time pass, and the alarm notice."""
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
    assert stand.crew.log == []
    await stand.pass_(0.999)
    assert stand.crew.log == []
    await stand.pass_(0.001)
    assert stand.crew.log == [1, 3, 4]
    await stand.pass_(10)
    assert stand.crew.log == [1, 3, 4, 2, 0]
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
    """Whether a step is taken at once or, as before 3.12, with the loop's next turn."""
    stand = Stand()

    async def slow() -> None:
        stand.clock.now += SECOND

    for number in range(4):
        stand.engine.add(number, stand.clock.now, slow)
    stand.start()
    await turns(40)
    assert stand.crew.log == [0, 1, 2, 3]
    most, total, _ = stand.recorder.take()
    assert most == 3 * SECOND
    assert total == (0 + 1 + 2 + 3) * SECOND
    stand.alarm.stop()


async def test_a_queue_knows_no_lateness() -> None:
    stand = Stand(Order.FIFO)
    stand.start()
    stand.engine.add(0, 0, nothing)
    await turns()
    assert stand.crew.log == [0]
    assert stand.recorder.take() == (0, 0, [])


async def test_what_comes_later_may_be_due_earlier() -> None:
    stand = Stand()
    stand.start()
    stand.engine.add(0, stand.clock.now + 20 * SECOND, nothing)
    await turns()
    stand.engine.add(1, stand.clock.now + SECOND, nothing)
    stand.engine.add(2, stand.clock.now, nothing)
    await turns()
    assert stand.crew.log == [2]
    await stand.pass_(1)
    assert stand.crew.log == [2, 1]


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
    assert stand.crew.log == expected
    stand.engine.add(9, 0, nothing)  # it wakes again after it was empty
    await turns()
    assert stand.crew.log[-1] == 9


async def test_cancel_in_every_state() -> None:
    stand = Stand(hold=True)
    engine, crew = stand.engine, stand.crew
    later = stand.clock.now + SECOND
    for number, entry in enumerate([nothing, nothing, forever, forever, nothing]):
        engine.add(number, later if number == 0 else 0, entry)
    assert engine.cancel(4)  # before start
    stand.start()
    await turns()
    assert engine.cancel(0)  # waiting
    assert engine.find(1) is not None
    assert engine.cancel(1)  # launched, not yet run
    crew.held.pop()()
    assert engine.cancel(2)  # handed to asyncio, perhaps before its first step
    await turns()
    assert engine.cancel(3)  # running
    await turns()
    assert not any(engine.cancel(number) for number in range(6))
    assert sorted(str(entry) for entry in crew.log) == sorted(
        [
            "('withdrawn', 4)",
            "('withdrawn', 0)",
            "('withdrawn', 1)",
            str(next(e for e in crew.log if e[1] == 2)),  # by either word, but once
            "('cancelled', 3)",
        ]
    )
    assert (engine.pending, engine.running) == (0, {})


async def test_a_million_due_at_once_would_run_in_slices() -> None:
    stand = Stand()
    for number in range(2000):
        stand.engine.add(number, 0, nothing)
    stand.start()
    seen = []
    while len(stand.crew.log) < 2000:
        await asyncio.sleep(0)  # anything else gets its turn in between
        seen.append(len(stand.crew.log))
    assert max(map(len, stand.crew.slices)) <= MAX_SLICE
    assert len(seen) >= 2000 // MAX_SLICE
    assert stand.crew.log == list(range(2000))


async def test_slices_of_slow_tasks_are_short() -> None:
    stand = Stand()

    async def slow() -> None:
        stand.clock.now += SLICE_TIME

    for number in range(200):
        stand.engine.add(number, 0, slow)
    stand.start()
    while len(stand.crew.log) < 200:
        await asyncio.sleep(0)
    assert stand.crew.log == list(range(200))
    assert max(map(len, stand.crew.slices[4:])) <= 2


async def test_stop_gives_back_what_has_not_run() -> None:
    stand = Stand(hold=True)
    stand.engine.add(0, 0, nothing)
    stand.start()
    await turns()
    stand.engine.add(1, stand.clock.now + SECOND, nothing)
    assert stand.engine.stop() == ({0: nothing}, {1: nothing})
    stand.crew.held.pop()()
    await stand.pass_(5)
    assert stand.crew.log == []
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
    assert timer.handle is None  # nobody waits: it does not wake the loop
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
    def refuse(self: object) -> None:
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
    launch, stand.crew.launch = stand.crew.launch, lambda engine, numbers, dues: engine.run([], [])  # type: ignore[method-assign]
    stand.start()
    stand.engine.add(0, 0, nothing)
    stand.engine.add(1, 0, nothing)
    await turns()
    stand.crew.launch = launch  # type: ignore[method-assign]
    assert stand.crew.log == []
    assert stand.engine.cancel(0)
    await turns()
    assert stand.crew.log == [("withdrawn", 0), 1]
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
    assert stand.crew.log == [3, 4]


@pytest.mark.parametrize("order", [Order.TIMED, Order.FIFO])
async def test_nothing_begins_while_the_loop_seems_to_be_ending(order: Order) -> None:
    """What was launched, and the rest of a slice, wait as well."""
    stand = Stand(order)
    stand.engine.ahead = 4
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
    assert begun == stand.crew.log == [0, 1]
    assert stand.engine.pending == 2
    stand.engine._hold_back._look(loop)  # this test is not cancelled: the loop goes on
    await turns(40)
    assert stand.crew.log == [0, 1, 2, 3]
    stand.alarm.stop()


async def fail() -> None:
    raise LookupError


class RestingCrew(Crew):
    """Has what fails rest for a second, and then start once more."""

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
    stand.crew = RestingCrew(hold=hold)
    stand.engine = Engine(0, order, stand.crew, stand.recorder, stand.clock)
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
    assert stand.crew.log == [("failed", 0)]
    await stand.pass_(0.001)
    assert stand.crew.log == [("failed", 0), 0, 1]
    stand.alarm.stop()


async def test_what_rests_can_be_withdrawn_or_cancelled_in_every_state() -> None:
    stand = resting(Order.FIFO)
    for number in range(3):
        stand.engine.add(number, 0, fail if number < 2 else nothing)
    stand.start()
    await turns()
    assert stand.engine.withdraw(0) is nothing  # while it rests
    await turns()
    assert stand.crew.log == [("failed", 0), ("failed", 1)]
    stand.crew._hold = True
    await stand.pass_(1)
    assert stand.engine.cancel(1)  # while it is announced
    await turns()
    assert stand.crew.log[2:] == [("withdrawn", 1)]
    stand.crew._hold = False
    stand.crew.held.pop()()
    await turns()
    assert stand.crew.log[3:] == [2]
    assert stand.engine.pending == len(stand.engine._queue) == 0
    stand.alarm.stop()


async def test_a_stop_gives_back_what_rests() -> None:
    stand = resting(Order.FIFO)
    stand.engine.add(0, 0, fail)
    stand.start()
    await turns()
    assert stand.engine.stop() == ({}, {0: nothing})
    await stand.pass_(5)
    assert stand.crew.log == [("failed", 0)]
    stand.alarm.stop()


async def test_a_queue_may_launch_ahead_and_still_runs_one_at_a_time() -> None:
    stand = Stand(Order.FIFO, hold=True)
    stand.engine.ahead = 3
    gates = [asyncio.Event() for _ in range(5)]
    for number, gate in enumerate(gates):
        stand.engine.add(number, 0, gate.wait)
    stand.start()
    await turns()
    assert stand.crew.slices == [[0, 1, 2]]
    stand.crew.held.pop()()
    for number in range(3):
        await turns()
        assert list(stand.engine.running) == [number]
        # The next ones are launched when the last of these has begun.
        assert len(stand.crew.slices) == 1 + (number == 2)
        if number != 2:
            gates[number].set()
    assert stand.crew.slices[1] == [3, 4]
    stand.crew.held.pop()()
    await turns()
    assert list(stand.engine.running) == [2]
    for gate in gates:
        gate.set()
    await turns(20)
    assert stand.crew.log == [0, 1, 2, 3, 4]
    stand.alarm.stop()


async def test_what_ends_at_once_needs_no_task() -> None:
    stand = Stand()
    word: ContextVar[str] = ContextVar("word", default="")
    seen: list[tuple[int, str]] = []

    def execute(engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        seen.append((number, word.get()))
        word.set("of another")

    stand.crew.execute = execute  # type: ignore[method-assign, assignment]
    stand.start()
    stand.engine.add_many(range(3), 0, [nothing] * 3)
    await turns()
    assert seen == [(0, ""), (1, ""), (2, "")]
    assert (stand.engine.pending, stand.engine.running) == (0, {})
    assert stand.recorder.take()[2]
    stand.alarm.stop()


async def test_a_forked_copy_begins_nothing_more() -> None:
    stand = Stand()

    def execute(engine: Engine[Any], number: int, entry: Any, due: int) -> None:
        stand.crew.log.append(number)
        engine.drop_slice()

    stand.crew.execute = execute  # type: ignore[method-assign, assignment]
    stand.start()
    stand.engine.add_many(range(3), 0, [nothing] * 3)
    await turns()
    assert stand.crew.log == [0]
    stand.alarm.stop()


async def test_what_was_discarded_comes_back_at_its_new_time() -> None:
    stand = Stand()
    stand.start()
    start = stand.clock.now
    stand.engine.add_many(range(2), start + SECOND, [nothing, nothing])
    assert stand.engine.withdraw(0) is nothing
    stand.engine.add_again([0], start + 2 * SECOND, [nothing])
    await stand.pass_(1)
    assert stand.crew.log == [1]
    assert stand.engine.withdraw(0) is nothing
    stand.engine.add_again([0], [start], [nothing])
    await turns()
    assert stand.crew.log == [1, 0]
    await stand.pass_(5)
    assert stand.crew.log == [1, 0]


async def test_what_was_launched_in_two_parts_and_waits_for_its_place_gets_it() -> None:
    """A part comes late, when its payload is here, and the next is launched while it is away."""
    stand = Stand(Order.FIFO, hold=True)
    stand.engine.ahead = 3
    stand.start()
    stand.engine.add(0, 0, nothing)
    await turns()
    stand.engine.run([], [])  # of what was launched nothing is ready
    for number in (1, 2):
        stand.engine.add(number, 0, nothing)
    await turns()
    late, rest = stand.crew.held
    late()
    rest()
    await turns()
    assert stand.crew.log == [0, 1, 2]
