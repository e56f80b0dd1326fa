"""The kernel's timer: it rings when it is due, and touches no descriptor but its own."""

from __future__ import annotations

import errno
import os
import select
import sys
import time

import pytest

from aioscheduler._scheduling.clock import LATEST

if sys.platform != "linux":
    pytest.skip("Linux alone has a timerfd", allow_module_level=True)

from collections.abc import Iterator

from aioscheduler._scheduling import timerfd
from aioscheduler._scheduling.timerfd import TimerFd


@pytest.fixture
def timer() -> Iterator[TimerFd]:
    timer = TimerFd()
    yield timer
    timer.close()


def rings(timer: TimerFd, patience: float = 5.0) -> bool:
    return bool(select.select([timer.fd], [], [], patience)[0])


def test_what_has_passed_rings_at_once_and_once(timer: TimerFd) -> None:
    for due in (1, 0, -5):  # 0 would disarm the kernel's
        timer.set(due)
        assert rings(timer), due
        assert timer.read()
        assert not timer.read()
        assert not rings(timer, 0)


def test_never_takes_back_what_was_set(timer: TimerFd) -> None:
    timer.set(1)
    assert rings(timer)
    timer.set(None)
    assert not timer.read()  # it rang before, and was set again


def test_the_end_of_time_is_as_far_as_it_goes(
    timer: TimerFd, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer.set(LATEST)
    timer.set(10**30)
    assert not rings(timer, 0)
    told: list[int] = []
    monkeypatch.setattr(timerfd, "_set", lambda fd, due, flags: told.append(due))
    timer.set(10**30)
    assert told == [LATEST]


def test_a_clock_that_was_set_is_a_ring_and_no_error(
    timer: TimerFd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: object) -> bytes:
        raise OSError(errno.ECANCELED, "the clock was set")

    monkeypatch.setattr(timerfd, "_set", cancelled)
    timer.set(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", cancelled)
        rung = timer.read()
    assert rung


def test_a_timer_that_was_closed_says_so() -> None:
    timer = TimerFd()
    assert timer.is_there()
    os.close(timer.fd)
    assert not timer.is_there()
    with pytest.raises(OSError, match="Bad file descriptor"):
        timer.set(1)


def test_a_file_in_its_place_is_left_alone() -> None:
    timer = TimerFd()
    fd = timer.fd
    with open(os.devnull) as file:
        os.dup2(file.fileno(), fd)
        assert not timer.is_there()
        with pytest.raises(OSError, match="Invalid argument"):
            timer.set(1)
        timer.close()
        assert os.path.sameopenfile(fd, file.fileno())
    os.close(fd)


def test_it_is_closed_once_by_hand_or_with_its_last_reference() -> None:
    timer = TimerFd()
    fd = timer.fd
    timer.close()
    assert timer.fd == -1
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == fd
    timer.close()
    del timer
    os.close(other)  # it was left alone: otherwise this raises
    timer = TimerFd()
    fd = timer.fd
    del timer
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_one_on_the_monotonic_clock_rings_by_that() -> None:
    timer = TimerFd(monotonic=True)
    timer.set(time.monotonic_ns() + 5_000_000)
    assert not timer.read()
    assert select.select([timer.fd], [], [], 10)[0]
    assert timer.read()
    timer.set(time.monotonic_ns() + 3600 * 10**9)
    assert not select.select([timer.fd], [], [], 0.01)[0]
    timer.close()
