"""Checks around every test: nothing is left behind, and no failure goes unheard."""

from __future__ import annotations

import asyncio
import gc
import glob
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

# A shell starts background jobs with SIGINT ignored, and the processes of the tests would inherit
# that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Thousands of processes are started here: share what they compile.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No timing is asserted: a machine may be slow.
settings.register_profile("aioscheduler", deadline=None)
settings.load_profile("aioscheduler")


def pytest_collection_finish() -> None:
    """Freeze all imports, so that the collections around each test scan only its own objects.

    This saves six sevenths of the time of the unit tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def what_stays_of_a_module_is_not_looked_at() -> Iterator[None]:
    """Freeze the reports of tests: each collection would scan all of them."""
    yield
    gc.collect()
    gc.freeze()


def children() -> set[int]:
    """Return our child processes except the standard library's resource tracker."""
    tracker = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    try:  # by thread; psutil reads the parent of every process of the machine
        threads = [Path(name) for name in glob.glob("/proc/self/task/*/children")]
        found = {int(pid) for thread in threads for pid in thread.read_text().split()}
    except OSError:
        threads = []
    if not threads:
        found = {child.pid for child in psutil.Process().children()}
    return found - {tracker}


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    resource_tracker.ensure_running()  # its descriptor stays
    gc.collect()
    before = children(), len(descriptors()), threading.active_count()
    yield
    gc.collect()
    deadline = time.monotonic() + 2  # a library's thread that was asked to end does so soon
    while threading.active_count() > before[2] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (children(), len(descriptors()), threading.active_count()) == before


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Make a folder for sockets, whose paths may have at most a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="aio", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
async def reports() -> AsyncIterator[list[dict[str, Any]]]:
    """Collect what reaches the loop's exception handler; a test clears what it expects."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield found
    gc.collect()
    await asyncio.sleep(0)
    assert not found


@pytest.fixture
async def no_tasks_left() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= {asyncio.current_task()}
