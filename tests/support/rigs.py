"""A folder where hosts of durable tasks succeed one another: a store, and its tasks' log."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from enduring import lines_of
from programs import Program

from aioscheduler import DeadLetter, Manager, SQLiteStore


class Rig:
    """A folder with a store.

    Args:
        folder: The folder.

    Attributes:
        path: The path of the store.
        log: The file to which tasks append their lines.
        gate: The file that tasks wait for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "tasks.db"
        self.log = str(folder / "log")
        self.gate = folder / "gate"
        self._programs = ExitStack()

    def manager(self, workers: int = 1, **options: Any) -> Manager:
        """Return the next host, in this process; the last one or its workers may be ending."""
        return Manager(store=SQLiteStore(self.path, wait=30), workers=workers, **options)

    def host(self, deed: str, *args: object) -> Program:
        """Start a host in another process."""
        program = Program("enduring_host.py", deed, self.path, self.log, *args)
        self._programs.callback(program.close)
        return program

    def said(self) -> list[str]:
        return lines_of(Path(self.log))

    async def until_said(self, *wanted: str) -> None:
        while not set(wanted) <= set(self.said()):
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self._programs.close()


async def letters(manager: Manager, **which: Any) -> list[DeadLetter]:
    return [letter async for letter in manager.dead_letters(**which)]


def kill_worker(manager: Manager, rig: int = 0, how: int = signal.SIGKILL) -> None:
    pid = manager.stats().workers[rig].pid
    assert pid is not None
    os.kill(pid, how)
