"""A worker alone, for the tests of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from solo import Make, Place

from aioscheduler._transport.wire import Kind


@pytest.fixture
async def make(no_tasks_left: None, reports: list[Any]) -> AsyncIterator[Make]:
    """Return a function that makes places, whose workers are ended after the test."""
    made: list[Place] = []

    def make(*args: Any, **kwargs: Any) -> Place:
        made.append(Place(*args, **kwargs))
        return made[-1]

    yield make
    for place in made:
        place.worker.halt()
        place.serving.cancel()
        await asyncio.wait([place.serving])


@pytest.fixture
async def place(make: Make) -> Place:
    """One that is ready."""
    place = make()
    await place.start()
    assert place.take() == [[Kind.READY]]
    return place
