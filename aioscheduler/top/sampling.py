"""Samples of the running managers: their snapshots, and the names of their programs."""

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
    """The answers of all managers at one time.

    Attributes:
        at: The time, in seconds that only grow.
        snapshots: The answers, ordered by pid and manager, so that nothing jumps about.
        programs: The names of programs, by pid, as far as they are known.
    """

    at: float
    snapshots: list[Snapshot]
    programs: dict[int, str]


def take_sample() -> Sample:
    """Return a sample of all managers; takes a second if one does not answer."""
    at = time.monotonic()
    found = sorted(snapshots(), key=lambda snapshot: snapshot[:2])
    programs = {}
    for pid in {snapshot.pid for snapshot in found}:
        command = command_line(pid)
        if command is not None:  # else it has ended in the meantime
            programs[pid] = program_name(command)
    return Sample(at, found, programs)


def program_name(command: Sequence[str]) -> str:
    """Return a program's name from its command line: `bot.py`, `-m bot`, `-c`, no arguments."""
    name = os.path.basename(command[0]) if command else ""
    if name.startswith(("python", "pypy")):
        # Options without a value are skipped.
        for index, word in enumerate(command[1:], 1):
            if word in ("-m", "-c", "-"):
                name = " ".join(command[index : index + 2]) if word == "-m" else word
                break
            if not word.startswith("-"):
                name = os.path.basename(word)
                break
    return "".join(letter if letter.isprintable() else "?" for letter in name)


class Sampler(threading.Thread):
    """A thread that samples repeatedly, so that a silent manager does not hold up the keys.

    Args:
        interval: Seconds from one sample to the next.
        notify: Called, in this thread, when there is a sample to get.
    """

    def __init__(self, interval: float, notify: Callable[[], object]) -> None:
        super().__init__(name="aioscheduler-top", daemon=True)
        self._interval = interval
        self._notify = notify
        self._taken: queue.SimpleQueue[Sample | Exception] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Take samples until `stop`, or until one fails."""
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._interval, time.monotonic())
            try:
                self._taken.put(take_sample())
            except Exception as error:  # noqa: BLE001  raised by `get`
                self._taken.put(error)
                return
            finally:
                self._notify()

    def stop(self) -> None:
        """Ask the thread to end soon."""
        self._stopped.set()

    def get(self) -> Sample | None:
        """Return the next sample, None if there is none yet.

        Raises:
            Exception: The exception that ended the thread.
        """
        try:
            taken = self._taken.get_nowait()
        except queue.Empty:
            return None
        if isinstance(taken, Exception):
            raise taken
        return taken
