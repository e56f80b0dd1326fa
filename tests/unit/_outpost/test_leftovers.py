from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from aioscheduler._outpost import leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray is asked for on Linux alone")

SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
# A process whose child gets another parent when it ends.
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
"""
HELD = PARENT + "from aioscheduler._outpost import leftovers\nleftovers.have_them_end_with_us()\n"


@pytest.fixture
def started() -> Iterator[list[psutil.Process]]:
    found: list[psutil.Process] = []
    yield found
    for each in found:
        if each.is_running():
            each.kill()


def wait_until_gone(process: psutil.Process) -> None:
    """Wait until a process has ended; an orphan may stay a zombie, with nobody to reap it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def start(code: str, started: list[psutil.Process]) -> tuple[subprocess.Popen[str], psutil.Process]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)  # type: ignore[call-overload]
    child = psutil.Process(int(process.stdout.readline()))
    started.append(child)
    return process, child


def close(process: subprocess.Popen[str]) -> None:
    process.communicate()


def test_descendants_are_children_and_theirs(started: list[psutil.Process]) -> None:
    process, child = start(PARENT + "sys.stdin.read()", started)
    found = list(leftovers.descendants())
    assert {process.pid, child.pid} <= set(found)
    assert os.getpid() not in found
    assert found.index(process.pid) < found.index(child.pid)
    child.kill()
    close(process)


def test_they_are_killed(started: list[psutil.Process]) -> None:
    process, child = start(
        PARENT + "from aioscheduler._outpost import leftovers\nleftovers.kill()\nsys.stdin.read()",
        started,
    )
    wait_until_gone(child)
    close(process)
    assert process.returncode == 0


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, None])
def test_they_end_with_who_has_started_them(
    by: signal.Signals | None, started: list[psutil.Process]
) -> None:
    process, child = start(HELD + "print('held', flush=True)\nsys.stdin.read()", started)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert child.is_running()
    if by is not None:
        process.send_signal(by)
    close(process)
    wait_until_gone(child)


def test_without_that_they_stay(started: list[psutil.Process]) -> None:
    process, child = start(PARENT + "sys.stdin.read()", started)
    process.kill()
    close(process)
    assert child.is_running()
