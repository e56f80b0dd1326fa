"""Ending the processes that a local Ray leaves behind.

A Ray of one node dies with the process that started it, except for two agents of that node, which
have another parent then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_BROOM = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
os.read(0, 1)  # returns when the other end is closed: its process has ended, in whatever way
for held in map(int, sys.argv[1:]):
    try:
        signal.pidfd_send_signal(held, signal.SIGKILL)
    except OSError:
        pass
"""
_kept: list[int] = []


def descendants() -> Iterator[int]:
    """Yield the ids of this process's children, of theirs, and so on."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parent = path.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(path.parent.name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        yield pid
        found += children.get(pid, ())


def kill() -> None:
    """Kill all descendants."""
    for pid in list(descendants()):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def have_them_end_with_us() -> None:
    """Have all descendants killed when this process ends, in whatever way.

    Another process does it, by descriptors: a process id may be reused.
    """
    held = []
    for pid in list(descendants()):
        with suppress(OSError):
            held.append(os.pidfd_open(pid))
    reading, writing = os.pipe()  # the writing end is ours alone
    try:
        subprocess.Popen(  # noqa: S603 - this Python, and the code above
            [sys.executable, "-I", "-S", "-c", _BROOM, *map(str, held)],
            stdin=reading,
            pass_fds=held,
            start_new_session=True,
        )
    finally:
        for each in (reading, *held):
            os.close(each)
    _kept.append(writing)
