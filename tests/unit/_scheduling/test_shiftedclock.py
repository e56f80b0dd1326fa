"""The host's time on another machine, and an alarm that uses it."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from aioscheduler._scheduling import alarm
from aioscheduler._scheduling.alarm import Alarm
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.shiftedclock import ShiftedClock

FAR = 3_000_000 * SECOND  # far from the time of day, and from the machine's monotonic clock


def test_it_is_the_monotonic_clock_and_its_lead() -> None:
    clock = ShiftedClock(FAR)
    before, now, after = time.monotonic_ns(), clock(), time.monotonic_ns()
    assert before <= now - FAR <= after
    clock.shift(0)
    assert clock() < FAR


@pytest.mark.parametrize("by_kernel", [True, False])
async def test_a_sleeper_is_never_woken_early(
    by_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_kernel and sys.platform != "linux":
        pytest.skip("its timer is Linux's")
    if not by_kernel:
        monkeypatch.setattr("sys.platform", "other")
    clock = ShiftedClock(FAR)
    loop = asyncio.get_running_loop()
    found = Alarm(loop, clock)
    assert isinstance(found._timer, alarm._KernelTimer) is by_kernel
    woken: asyncio.Future[int] = loop.create_future()
    due = clock() + SECOND // 50
    found.set(lambda: woken.set_result(clock()), due)
    assert await woken >= due
    found.stop()


async def test_a_growing_lead_wakes_sleepers_that_are_due_by_it() -> None:
    clock = ShiftedClock(FAR)
    loop = asyncio.get_running_loop()
    found = Alarm(loop, clock)
    woken: asyncio.Future[int] = loop.create_future()
    due = clock() + 3600 * SECOND
    found.set(lambda: woken.set_result(clock()), due)
    clock.shift(FAR + 3600 * SECOND)
    assert await woken >= due
    found.stop()


async def test_a_shrinking_lead_lets_sleepers_sleep() -> None:
    clock = ShiftedClock(FAR)
    found = Alarm(asyncio.get_running_loop(), clock)
    woken: list[int] = []
    due = clock() + SECOND // 100
    found.set(lambda: woken.append(clock()), due)
    clock.shift(FAR - 3600 * SECOND)
    await asyncio.sleep(0.05)
    assert not woken
    found.stop()
