"""A script in two processes that are one, for the tests of what is shipped."""

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
