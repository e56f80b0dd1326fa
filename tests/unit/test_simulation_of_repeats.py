"""Durable repeats over hosts that die at any commit: no nominal time is lost, early or run twice.

`mortal` has the hosts; a seed replays exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from mortal import World

from aioscheduler._routing.repeatfile import RepeatFile
from aioscheduler._routing.repeats import Repeats
from aioscheduler._routing.underway import UnderWay


def live(seed: int) -> World:
    world = World(seed)

    async def story() -> None:
        async with asyncio.timeout(50):
            await world.run()

    asyncio.run(story())
    return world


@pytest.mark.parametrize("seed", range(40))
def test_each_time_is_run_or_skipped_whatever_dies(seed: int) -> None:
    assert live(seed).faults == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_each_time_is_run_or_skipped_over_ten_thousand_deaths() -> None:
    worlds: list[World] = []
    while sum(world.deaths for world in worlds) < 10_000:
        worlds.append(live(1000 + len(worlds)))
        assert worlds[-1].faults == [], len(worlds)


def test_hosts_do_die() -> None:
    assert sum(live(seed).deaths for seed in range(10)) > 30


def nothing(*_: Any) -> None:
    """A stand-in."""


def _enter_some(real: Callable[..., None]) -> Callable[..., None]:
    def enter(repeats: Repeats, repeat: Any, run: Any, call: Any, draft: Any) -> None:
        if run.nominal % 7:  # of some runs only the progress is there
            real(repeats, repeat, run, call, draft)

    return enter


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (RepeatFile, "advance", lambda real: nothing),
        (RepeatFile, "whole", lambda real: lambda file: nullcontext()),
        (UnderWay, "admitted", lambda real: nothing),
        (Repeats, "_enter", _enter_some),
    ],
)
def test_what_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, wrong: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(where, name, wrong(getattr(where, name)))
    for seed in range(60):
        if live(seed).faults:
            return
    pytest.fail("no seed has found it")
