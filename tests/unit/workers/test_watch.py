"""The thread beside a worker's loop: what counts as a block, and what does not."""

from __future__ import annotations

import asyncio
import os
import threading
from threading import get_ident
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._processes.process import workers_module
from aioscheduler.errors import EXIT_OF_BLOCKED

steps = workers_module("steps")
watch = workers_module("watch")


def test_a_loop_that_turns_is_not_blocked() -> None:
    watchdog = watch.Watchdog(100.0)
    assert not any(watchdog.look(now, now - 0.9) for now in (102.0, 104.0, 106.0))


def test_a_block_is_reported_once() -> None:
    watchdog = watch.Watchdog(100.0)
    looks = [watchdog.look(now, 101.0) for now in (102.0, 104.0, 106.0, 108.0)]
    assert looks == [0, 0, 5.0, 0]
    assert watchdog.look(110.0, 109.5) == 0
    assert [watchdog.look(now, 109.5) for now in (112.0, 114.0)] == [0, 4.5]


def test_before_the_first_turn_nothing_is_known() -> None:
    watchdog = watch.Watchdog(100.0)
    assert not any(watchdog.look(now, 0.0) for now in (102.0, 104.0, 106.0))


def test_a_process_that_stood_still_blames_nobody() -> None:
    watchdog = watch.Watchdog(100.0)
    assert watchdog.look(102.0, 101.9) == 0
    assert watchdog.look(160.0, 101.9) == 0  # stopped meanwhile
    assert watchdog.look(162.0, 160.1) == 0


def test_a_block_after_standing_still_counts_from_there() -> None:
    watchdog = watch.Watchdog(100.0)
    looks = [watchdog.look(now, 101.0) for now in (160.0, 162.0, 164.0)]
    assert looks == [0, 0, 4.0]


# ---- a step that lasts too long

PERIOD = 1 / 8  # none of these values is rounded
TIMEOUT = 1.0


def test_looks_on_time_are_added_up_and_late_ones_are_not() -> None:
    stopwatch = watch.Stopwatch(PERIOD)
    seen = [(10.0, False), (10.125, True), (10.25, True), (20.0, True), (20.125, True)]
    assert [stopwatch.look(*look) for look in seen] == [0, 0.125, 0.25, 0.25, 0.375]
    assert stopwatch.look(20.25, False) == 0
    assert stopwatch.look(20.375, True) == 0.125


def test_there_are_as_many_looks_as_a_timeout_needs() -> None:
    for timeout in (0.001, 0.02, 0.3, 1.0, 5.0, 3600.0):
        period = watch.WATCH_EVERY / watch.looks_between(timeout)
        assert 0.02 <= period <= watch.WATCH_EVERY
        assert period <= timeout / 8 or period == 0.02 or period == watch.WATCH_EVERY


class Loop:
    """A loop that is turned by hand, and may be closed."""

    def __init__(self) -> None:
        self.ready: list[Any] = []
        self.asked = 0
        self.closed = False

    def call_soon_threadsafe(self, call: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.asked += 1
        self.ready.append(call)

    def turn(self) -> None:
        ready, self.ready = self.ready, []
        for call in ready:
            call()


class Watched:
    """A guard, and the loop that it sees.

    Attributes:
        ticked: As of a worker: 0 while it boots.
        part: The asyncio task of the worker itself.
        step: The step in which the loop is.
    """

    thread = 1

    def __init__(self) -> None:
        self.ticked = 1.0
        self.part: Any = None
        self.step: Any = None
        self.now = 100.0
        self.loop = Loop()
        guard = watch.Guard(self, self.loop, TIMEOUT, PERIOD, lambda *_: self.step)
        self.guard: Any = guard

    def name_own(self, task: object) -> str:
        return "the initializer" if task is not None and task is self.part else ""

    def begin(self, own: object = None, current: object = None) -> None:
        """Begin another step."""
        self.step = watch.Step(object(), object(), own, current)

    def look(self, seconds: float = PERIOD) -> Any:
        self.now += seconds
        return self.guard.look(self.now)

    def looks(self, count: int = 20) -> list[Any]:
        return [found for _ in range(count) if (found := self.look()) is not None]


def test_a_step_that_does_not_end_is_found_a_look_late_at_most() -> None:
    watched = Watched()
    watched.look()
    watched.begin()
    assert [watched.look() is not None for _ in range(11)] == [False] * 8 + [True] * 3
    watched.loop.turn()
    watched.step = None
    assert not watched.looks()
    assert watched.loop.asked == 2  # no turn is requested while another request waits


def test_a_loop_that_turns_is_asked_and_blames_nobody() -> None:
    watched = Watched()
    for _ in range(20):
        watched.begin()
        watched.loop.turn()
        assert watched.look() is None
    assert watched.loop.asked == 20


def test_a_coroutine_that_goes_on_after_a_turn_is_in_another_step() -> None:
    watched = Watched()
    watched.begin()
    for _ in range(20):  # it has the same frames
        watched.loop.turn()
        assert watched.look() is None


def test_an_initializer_or_the_end_of_a_worker_is_no_block() -> None:
    watched = Watched()
    watched.begin()
    watched.ticked = 0.0
    assert not watched.looks()
    assert watched.loop.asked == 0
    watched.ticked, watched.part = 1.0, object()
    watched.begin(current=watched.part)
    assert not watched.looks()
    watched.begin(own=object(), current=watched.part)  # which starts a task
    assert watched.looks()


def test_a_loop_that_is_closed_is_left_alone() -> None:
    watched = Watched()
    watched.begin()
    watched.loop.closed = True
    assert not watched.looks()


def test_objects_of_ended_steps_are_freed_by_the_loop() -> None:
    watched = Watched()
    watched.begin()
    watched.look()
    watched.look()
    probe = watched.guard._probe
    assert len(probe.seen) == 2
    watched.loop.turn()
    assert not probe.seen


EVENTS = ("goes on", "is followed", "the loop turns", "the loop waits", "all stands still")


@given(st.lists(st.sampled_from(EVENTS) | st.just("goes on"), max_size=60))
def test_who_is_found_was_busy_for_that_long_and_who_was_is_found(events: list[str]) -> None:
    watched = Watched()
    seen = 0.0  # how long the step was seen, by looks on time
    for event in events:
        if event in ("the loop turns", "the loop waits"):
            watched.loop.turn()
        if event in ("is followed", "the loop turns", "the loop waits"):
            watched.begin()
            seen = -PERIOD  # it begins after the last look
        if event == "the loop waits":
            watched.step = None
        found = watched.look(10.0 if event == "all stands still" else PERIOD)
        if watched.step is None:
            assert found is None
        else:
            seen += 0.0 if event == "all stands still" else PERIOD
            assert (found is watched.step) == (seen >= TIMEOUT)


class End(BaseException):
    """Of the process."""


class Box:
    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[Any] = []
        self.error = error

    def blame(self, *words: Any) -> None:
        if self.error is not None:
            raise self.error
        self.told += words


@pytest.mark.parametrize("error", [None, OSError("the box is closed")])
async def test_the_process_ends_and_says_whose_step_it_was(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def exit_(status: int) -> None:
        raise End(status)

    monkeypatch.setattr(os, "_exit", exit_)
    step = steps.find_step(asyncio.get_running_loop(), get_ident())
    box: Any = Box(error)
    with pytest.raises(End) as end:
        watch._end_blocked(Watched(), box, step, 0.5)
    assert end.value.args == (EXIT_OF_BLOCKED,)
    if error is None:
        blamed, cause, stack = box.told
        assert blamed is None
        assert cause.endswith(
            "has kept the loop of its worker busy for more than block_timeout=0.5 s"
        )
        assert "in test_the_process_ends" in stack


@pytest.mark.parametrize("waits", [False, True])
async def test_it_ends_whatever_becomes_of_the_words(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    def exit_(status: int) -> None:
        raise End(status)

    def describe(*_: object) -> None:
        if waits:
            go_on.wait()
        raise LookupError("it has no name")

    go_on = threading.Event()
    monkeypatch.setattr(os, "_exit", exit_)
    monkeypatch.setattr(watch, "describe", describe)
    monkeypatch.setattr(watch, "LAST_WORDS", 0.05 if waits else 60)
    step = steps.find_step(asyncio.get_running_loop(), get_ident())
    box: Any = Box()
    threads = set(threading.enumerate())
    with pytest.raises(End):
        watch._end_blocked(Watched(), box, step._replace(current=0), 0.5)
    go_on.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join()
    blamed, cause, stack = box.told
    assert blamed is None
    assert cause.startswith("a callback of the loop has kept")
    assert "in test_it_ends_whatever" in stack


# ---- failures of the thread itself


def test_one_report_is_made_at_a_time() -> None:
    reports, go_on, made = watch.Reports(), threading.Event(), []

    def report(number: int) -> None:
        made.append(number)
        go_on.wait()

    def begin(number: int) -> threading.Thread:
        reports.begin(report, number)
        thread: threading.Thread = reports._thread
        return thread

    thread = begin(1)
    assert thread.daemon
    assert begin(2) is thread
    go_on.set()
    thread.join()
    begin(3).join()
    assert made == [1, 3]


class Thresholds:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def note_size(self, size: int) -> None:
        self.sizes.append(size)


class Failing(Watched):
    """A worker at which every look fails, as without memory."""

    def __init__(self) -> None:
        self.looked = 0

    @property
    def ticked(self) -> float:  # type: ignore[override]
        self.looked += 1
        raise MemoryError


def test_a_look_that_fails_is_reported_once_and_the_next_one_comes(caplog: Any) -> None:
    loop = asyncio.new_event_loop()
    worker, thresholds = Failing(), Thresholds()
    watcher = watch.Watcher(worker, loop, TIMEOUT, thresholds, Box())
    loop.close()
    looks = watch.looks_between(TIMEOUT)
    for _ in range(2 * looks):
        watcher.look()
    watcher._reports._thread.join()
    assert worker.looked == 2 * looks + 2  # at its step, and at its ticks
    assert len(thresholds.sizes) == 2
    (record,) = caplog.records
    assert "a look at the loop of a worker" in record.getMessage()
    assert record.exc_info[0] is MemoryError


def test_a_block_is_reported_with_its_stack(caplog: Any) -> None:
    watched, loop = Watched(), asyncio.new_event_loop()
    watched.thread = get_ident()
    watcher = watch.Watcher(watched, loop, None, Thresholds(), Box())
    watcher._watchdog.look = lambda *_: 3.5
    watcher.look()
    watcher._reports._thread.join()
    loop.close()
    (record,) = caplog.records
    first, *stack = record.getMessage().splitlines()
    assert first.startswith("a callback of the loop has kept the loop of its worker")
    assert "busy for 3.5 s" in first
    assert "in test_a_block_is_reported" in "".join(stack)


# ---- the process


def test_the_end_of_the_host_rings() -> None:
    reader, writer = os.pipe()
    assert not watch._rings(reader, 0)
    os.close(writer)
    assert watch._rings(reader, 0)
    os.close(reader)
    assert not watch._rings(-1, 0)  # an invalid descriptor does not end the watching
