"""Samples of the running managers: their snapshots, and what their programs are called."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .._monitoring.processmeter import command_line
from .._monitoring.statsserver import Snapshot, snapshots

NO_MANAGER = (
    "no running manager of this user found: start one with Manager(monitor=True) "
    "or AIOSCHEDULER_MONITOR=1"
)


class Sample(NamedTuple):
    """What all managers answered at one time.

    Attributes:
        at: When, in seconds that only grow.
        snapshots: In the order of pid and manager, so that nothing jumps about.
        programs: The name of the program, for each pid that has one.
    """

    at: float
    snapshots: list[Snapshot]
    programs: dict[int, str]


def take_sample() -> Sample:
    """Ask all managers; take a second if one does not answer."""
    at = time.monotonic()
    found = sorted(snapshots(), key=lambda snapshot: snapshot[:2])
    programs = {}
    for pid in {snapshot.pid for snapshot in found}:
        command = command_line(pid)
        if command is not None:  # else it has ended meanwhile
            programs[pid] = program_name(command)
    return Sample(at, found, programs)


def program_name(command: Sequence[str]) -> str:
    """Names a program by its command line: `bot.py`, `-m bot`, `-c`; no other arguments."""
    name = os.path.basename(command[0]) if command else ""
    if name.startswith(("python", "pypy")):
        # Options that take no value of their own are passed over.
        for place, word in enumerate(command[1:], 1):
            if word in ("-m", "-c", "-"):
                name = " ".join(command[place : place + 2]) if word == "-m" else word
                break
            if not word.startswith("-"):
                name = os.path.basename(word)
                break
    return "".join(letter if letter.isprintable() else "?" for letter in name)


class Sampler(threading.Thread):
    """Samples again and again: a manager that does not answer must not hold up the keys.

    Args:
        interval: Seconds from one to the next.
        tell: Called, in this thread, when there is a sample to get.
    """

    def __init__(self, interval: float, tell: Callable[[], object]) -> None:
        super().__init__(name="aioscheduler-top", daemon=True)
        self._interval = interval
        self._tell = tell
        self._taken: queue.SimpleQueue[Sample | Exception] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Take samples until `stop`, or until it fails."""
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval, time.monotonic())
            try:
                self._taken.put(take_sample())
            except Exception as error:  # noqa: BLE001 - raised where samples are got
                self._taken.put(error)
                return
            finally:
                self._tell()

    def stop(self) -> None:
        """Have it end soon."""
        self._stopped.set()

    def get(self) -> Sample | None:
        """Return a sample that was not given before, if there is one.

        Raises:
            Exception: What ended the thread.
        """
        try:
            taken = self._taken.get_nowait()
        except queue.Empty:
            return None
        if isinstance(taken, Exception):
            raise taken
        return taken
