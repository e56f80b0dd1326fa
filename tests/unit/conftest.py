"""Managers whose time passes by hand, and whose workers live in the test's thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from aioscheduler import Manager
from aioscheduler.testing import FakeClock


@pytest.fixture
def clock(request: pytest.FixtureRequest, reports: list[Any], no_tasks_left: None) -> FakeClock:
    """From the START of the test's module, if it has one; the test is watched for leftovers."""
    return FakeClock(getattr(request.module, "START", None))


@pytest.fixture(params=[0, 2])
async def manager(clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Manager]:
    async with clock.manager(4, workers=request.param) as manager:
        yield manager
