"""The documents' promises about time, and the tick that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aioscheduler._processes.budget import RestartBudget
from aioscheduler._processes.process import workers_module
from aioscheduler._processes.supervisor import Supervisor
from aioscheduler._scheduling import alarm, loopthread
from aioscheduler._scheduling.alarm import TICK, next_tick
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._transport.wire import Kind
from aioscheduler.stats import WorkerState
from aioscheduler.top import rates

ROOT = Path(__file__).parent.parent.parent
watch = workers_module("watch")


def promised(page: str, words: str) -> bool:
    return words in " ".join((ROOT / page).read_text(encoding="utf-8").split())


class Anything:
    """A loop, a process, a pipe, an occupant: it does nothing."""

    pid = 4711
    now: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any) -> Any:
        return self

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Any:
        self.when: float = when
        return self


def test_ticks_come_once_a_second_and_never_twice() -> None:
    for now in (0.0, 0.4, 0.998, 17.3):
        assert now < next_tick(now) <= now + TICK
        assert next_tick(now) % TICK == 0
    assert next_tick(6.9995) == 8.0  # called early: the seventh is past
    assert f"{TICK:g}" == "1"
    assert promised("docs/monitoring.md", "pushed by the workers once a second")
    assert promised("ARCHITECTURE.md", "once a second")


def test_a_clock_that_jumps_makes_tasks_a_second_late_at_most() -> None:
    loop: Any = Anything()
    timer = alarm._LoopTimer(loop, lambda: 0, print)
    for loop.now in (3.0, 3.5, 3.95):
        timer.set(3600 * SECOND)
        assert loop.when - loop.now <= 1.0
        timer.set(SECOND // 100)
        assert loop.when == pytest.approx(loop.now + 0.01)
    assert promised("docs/faults.md", "at most 1 s late beyond the jump")
    assert promised("README.md", "at most 1 s late after the change")


def keeper_of(loop: Any) -> Supervisor:
    keeper = Supervisor(0, lambda *_: loop, RestartBudget(1, 1.0), loop)
    keeper.start(loop)
    keeper._receive([Kind.READY])
    return keeper


@pytest.mark.parametrize("last", [0.0, 0.001, 0.5, 0.999, 1.0, 1.001])
@pytest.mark.parametrize("early", [0.0, 0.001])
def test_a_stopped_worker_is_silent_within_three_seconds(last: float, early: float) -> None:
    """Its last frame came at `last`; the host checks at each tick, or a little early."""
    loop = Anything()
    keeper = keeper_of(loop)
    for look in range(1, 6):
        if look - 1 - early <= last < look - early:
            keeper._receive([Kind.TICK])
        loop.now = look - early
        keeper.look_after()
        if keeper.state is WorkerState.SILENT:
            break
    assert TICK < loop.now - last <= 3.0
    assert promised("docs/faults.md", "silent within 3 s")


@pytest.mark.parametrize("looks_first", [0, 1])
def test_a_worker_that_ticks_is_never_silent(looks_first: int) -> None:
    """Its tick alternates between just before and just after the host's check."""
    loop = Anything()
    keeper = keeper_of(loop)
    for loop.now in range(1, 20):
        if (loop.now + looks_first) % 2:
            keeper._receive([Kind.TICK])
            keeper.look_after()
        else:
            keeper.look_after()
            keeper._receive([Kind.TICK])
        assert keeper.state is WorkerState.READY


def test_a_blocked_loop_is_reported_after_three_to_five_seconds() -> None:
    for ticked in (100.0, 101.0, 101.9):
        watchdog = watch.Watchdog(100.0)
        now = 100.0
        while True:
            now += watch.WATCH_EVERY
            if blocked := watchdog.look(now, ticked):
                break
        assert 3 < blocked <= 5
    assert promised("docs/faults.md", "reported after 3 to 5 s")
    assert promised("docs/guide.md", "after three seconds it is reported")
    assert promised("README.md", "blocks its worker's loop for 3 s is reported")
    assert promised("docs/monitoring.md", "keeps its loop busy for 3 s")


def test_who_waits_is_told_within_a_second_that_nobody_starts() -> None:
    assert loopthread.START_PATIENCE <= 1.0
    assert promised("docs/faults.md", "`RuntimeError` within a second")


def test_a_lateness_is_shown_until_the_next_is_late_by_a_tick() -> None:
    assert 2 * TICK < rates.STALE < 3 * TICK
