"""A worker process: `aiomultiprocess.Process` without its server and without the parent's main.

Two things differ from the base class. No shared-namespace manager is started: it would cost a
process, and outlive a host that is killed. And the parent's `__main__` is hidden while a child
is spawned, so that the child does not run it a second time: a script needs no
`if __name__ == "__main__"` guard.
"""

from __future__ import annotations

import importlib
import multiprocessing.connection
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

import aiomultiprocess.core  # type: ignore[import-untyped]  # partly typed, not exported
import cloudpickle  # type: ignore[import-untyped]  # ships no type information
from aiomultiprocess.types import Unit  # type: ignore[import-untyped]

from .pipe import abandon

EXIT_GRACE = 1.0  # seconds workers have to end when the host ends without close()

_CONTEXT = aiomultiprocess.core.multiprocessing.get_context("spawn")


class WorkerProcess(aiomultiprocess.core.Process):  # type: ignore[misc]  # untyped base
    """A process that runs `aioscheduler_workers`.

    Args:
        name: Its name.
        reader: Where it reads frames.
        writer: Where it writes frames.
        config: Keyword arguments of the worker: plain values.
        loop_initializer: Makes its event loop; None for asyncio's own.

    Attributes:
        watch: A descriptor that is readable once the process has ended; -1 before it is
            started and after it was reaped.
    """

    watch = -1

    def __init__(
        self,
        name: str,
        reader: Connection,
        writer: Connection,
        config: dict[str, Any],
        loop_initializer: Callable[[], Any] | None,
    ) -> None:
        # `super().__init__` is left out: it starts the namespace server.
        make_loop = None
        if loop_initializer is not None:
            # As bytes, because `__main__`, where it may be from, is hidden while pickling.
            make_loop = partial(_make_loop, cloudpickle.dumps(loop_initializer))
        self.unit = Unit(
            target=_run_worker,
            args=(reader, writer, config),
            kwargs={},
            namespace=None,
            loop_initializer=make_loop,
        )
        self.aio_process = _CONTEXT.Process(
            target=aiomultiprocess.core.Process.run_async,
            args=(self.unit,),
            name=name,
            daemon=False,  # so that tasks may have process pools
        )

    def start(self) -> None:
        """Starts the process.

        Raises:
            OSError: The system has no room for it.
        """
        with _hidden_main(), _blocked_interrupt():
            self.aio_process.start()
        try:
            self.watch = self._open_watch()
        except OSError:
            self.kill()
            self.aio_process.join()
            raise

    def _open_watch(self) -> int:
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # an old kernel
                return os.pidfd_open(self.pid)
        # A pipe of multiprocessing's, which a forked grandchild would keep open.
        return os.dup(self.aio_process.sentinel)

    def reap(self) -> int | None:
        """Waits for the process, frees what it took, and gives its exit code."""
        self.aio_process.join()
        exitcode: int | None = self.exitcode
        self.close()
        os.close(self.watch)
        self.watch = -1
        return exitcode


loop_failure: list[BaseException] = []
"""In a worker: what its loop_initializer raised. It then runs on asyncio's loop to report it."""


def _make_loop(initializer: bytes) -> Any:
    try:
        return pickle.loads(initializer)()
    except BaseException as error:  # noqa: BLE001  reported by the worker, to the host
        import asyncio

        loop_failure.append(error)
        return asyncio.new_event_loop()


def workers_module(name: str) -> ModuleType:
    """Imports a module of the workers' package, which is named here and nowhere else."""
    return importlib.import_module(f"aioscheduler_workers.{name}")


async def _run_worker(reader: Connection, writer: Connection, config: dict[str, Any]) -> None:
    """In the child."""
    await workers_module("main").main(reader, writer, **config)


@contextmanager
def _hidden_main() -> Iterator[None]:
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _blocked_interrupt() -> Iterator[None]:
    """Keeps Ctrl-C from a child until it has its own handler: the mask is inherited."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_workers(alive: dict[WorkerProcess, list[int]]) -> None:
    """Ends workers whose manager is gone; no loop runs any more, so this may block, briefly.

    Args:
        alive: The processes, with the descriptors of their pipes.
    """
    for descriptors in alive.values():
        abandon(descriptors)  # which a worker reads as the end
    deadline = time.monotonic() + EXIT_GRACE
    for process in alive:
        left = max(0.0, deadline - time.monotonic())
        multiprocessing.connection.wait([process.watch], timeout=left)
        process.kill()
        process.reap()
    alive.clear()
