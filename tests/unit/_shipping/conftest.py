"""A script, with host and worker in one process, for the tests of shipping."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted import Script

PLAIN = """
SCALE = 10

async def call(function, *args):
    return function(*args)

async def echo(value):
    return value
"""


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Script]:
    """The script of the test's module, or a plain one."""
    with Script(getattr(request.module, "SCRIPT", PLAIN)) as world:
        yield world
