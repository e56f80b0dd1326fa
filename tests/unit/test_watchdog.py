"""When a worker's watchdog says that its loop is blocked."""

from __future__ import annotations

from aioscheduler.process import workers_module

main = workers_module("main")
STEP = main.WATCH_EVERY


def test_a_loop_that_turns_is_not_blocked() -> None:
    watchdog = main.Watchdog(100.0)
    assert not any(watchdog.look(now, now - 0.9) for now in (102.0, 104.0, 106.0))


def test_a_block_is_told_of_once() -> None:
    watchdog = main.Watchdog(100.0)
    looks = [watchdog.look(now, 101.0) for now in (102.0, 104.0, 106.0, 108.0)]
    assert looks == [0, 0, 5.0, 0]
    assert watchdog.look(110.0, 109.5) == 0
    assert [watchdog.look(now, 109.5) for now in (112.0, 114.0)] == [0, 4.5]


def test_before_the_first_turn_nothing_is_known() -> None:
    watchdog = main.Watchdog(100.0)
    assert not any(watchdog.look(now, 0.0) for now in (102.0, 104.0, 106.0))


def test_a_process_that_stood_still_blames_nobody() -> None:
    watchdog = main.Watchdog(100.0)
    assert watchdog.look(102.0, 101.9) == 0
    assert watchdog.look(160.0, 101.9) == 0  # stopped meanwhile
    assert watchdog.look(162.0, 160.1) == 0


def test_a_block_after_standing_still_counts_from_there() -> None:
    watchdog = main.Watchdog(100.0)
    looks = [watchdog.look(now, 101.0) for now in (160.0, 162.0, 164.0)]
    assert looks == [0, 0, 4.0]
