"""A worker alone, for the tests of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from solo import Make, Rig

from aioscheduler._transport.wire import Kind


@pytest.fixture
async def make(no_tasks_left: None, reports: list[Any]) -> AsyncIterator[Make]:
    """Return a function that makes places, whose workers are ended after the test."""
    made: list[Rig] = []

    def make(*args: Any, **kwargs: Any) -> Rig:
        made.append(Rig(*args, **kwargs))
        return made[-1]

    yield make
    for rig in made:
        rig.worker.halt()
        rig.serving.cancel()
        await asyncio.wait([rig.serving])


@pytest.fixture
async def rig(make: Make) -> Rig:
    """One that is ready."""
    rig = make()
    await rig.start()
    assert rig.take() == [[Kind.READY]]
    return rig
