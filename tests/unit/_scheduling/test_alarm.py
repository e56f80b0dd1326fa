"""An alarm whose descriptor a library closes; other tests of alarms are in `test_engine`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import pytest
from spoiling import put_another

from aioscheduler._scheduling import alarm as alarms
from aioscheduler._scheduling.alarm import Alarm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a timerfd")

MS = 1_000_000


def descriptor(alarm: Any) -> int:
    fd: int = alarm._timer._timer.fd
    return fd


def take_away(fd: int, how: str) -> int:
    """Yield a descriptor, and close it after the test."""
    if how == "closed":
        other = os.open(os.devnull, os.O_RDWR)
        os.close(fd)
        return other
    put_another(fd)
    return fd


@pytest.mark.parametrize("how", ["closed", "replaced"])
@pytest.mark.parametrize("when", ["before it is set", "after it was set"])
async def test_it_goes_on_with_the_loops_timer(
    how: str, when: str, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(alarms, "next_tick", lambda now: now + 0.001)
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, time.time_ns)
    rung: asyncio.Future[int] = loop.create_future()

    def set_it() -> int:
        due = time.time_ns() + 3 * MS
        alarm.set(lambda: rung.set_result(time.time_ns()), due)
        return due

    if when == "before it is set":
        other = take_away(descriptor(alarm), how)
        due = set_it()
    else:
        due = set_it()
        other = take_away(descriptor(alarm), how)
    async with asyncio.timeout(5):
        assert await rung >= due
    alarm.stop()
    assert "closed by something else" in caplog.text
    assert len(caplog.records) == 1
    os.close(other)  # it was left alone: otherwise this raises


async def test_it_closes_nothing_that_is_not_its_own() -> None:
    alarm = Alarm(asyncio.get_running_loop(), time.time_ns)
    fd = descriptor(alarm)
    os.close(fd)
    foreign = os.open(os.devnull, os.O_RDWR)
    assert foreign == fd
    alarm.stop()
    del alarm
    os.close(foreign)


async def test_without_sleepers_nothing_is_checked(monkeypatch: Any) -> None:
    monkeypatch.setattr(alarms, "next_tick", lambda now: now + 0.001)
    alarm: Any = Alarm(asyncio.get_running_loop(), time.time_ns)
    assert alarm._timer._next_look is None
    alarm.set(print, time.time_ns() + 10**12)
    assert alarm._timer._next_look is not None
    alarm.set(print, None)
    alarm._arm()
    while alarm._timer._next_look is not None:
        await asyncio.sleep(0.001)
    alarm.stop()
