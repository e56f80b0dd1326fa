"""A worker process: `aiomultiprocess.Process` without its server and without the parent's main.

Two things differ from the base class. No shared-namespace manager is started: it would cost a
process, and outlive a host that is killed. And it is a `spawn.SpawnProcess`.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.util import is_exiting
from types import ModuleType
from typing import Any

import aiomultiprocess.core  # type: ignore[import-untyped]  # partly typed, not exported
import cloudpickle  # type: ignore[import-untyped]  # ships no type information
from aiomultiprocess.types import Unit  # type: ignore[import-untyped]

from .._shipping.refusals import cannot_travel
from .._transport.pipe import abandon
from .blackbox import BlackBox
from .spawn import SpawnProcess, starting
from .workerconfig import WorkerConfig

EXIT_GRACE = 1.0  # seconds workers have to end when the host ends without close()
REAP_TIME = 3.0  # seconds from a kill until the process is given up; large ones take a while
_LOOK_EVERY = 0.005  # seconds


class WorkerProcess(aiomultiprocess.core.Process):  # type: ignore[misc]  # untyped base
    """A process that runs `aioscheduler_workers`.

    Args:
        name: Its name.
        reader: The connection from which it reads frames.
        writer: The connection to which it writes frames.
        box: The black box, which survives it.
        config: The worker's configuration.
        loop_initializer: Makes its event loop; None for asyncio's own.

    Raises:
        OSError: The loop_initializer cannot travel.
    """

    aio_process: SpawnProcess

    def __init__(
        self,
        name: str,
        reader: Connection,
        writer: Connection,
        box: BlackBox,
        config: WorkerConfig,
        loop_initializer: Callable[[], Any] | None,
    ) -> None:
        # `super().__init__` is left out: it starts the namespace server.
        make = None
        if loop_initializer is not None:
            # By value, because a worker does not have the parent's `__main__`.
            make = partial(make_loop, pack_loop_initializer(loop_initializer))
        self.unit: Any = Unit(
            target=_run_worker,
            args=(reader, writer, box, config),
            kwargs={},
            namespace=None,
            loop_initializer=make,
        )
        self.aio_process = SpawnProcess(
            target=_run,
            args=(self.unit,),
            name=name,
            daemon=False,  # so that tasks may have process pools
        )


def pack_loop_initializer(loop_initializer: Callable[[], Any]) -> bytes:
    """Return the initializer by value, for `make_loop`.

    Raises:
        OSError: It cannot travel.
    """
    try:
        return cloudpickle.dumps(loop_initializer)  # type: ignore[no-any-return]
    except Exception as error:
        name = getattr(loop_initializer, "__qualname__", repr(loop_initializer))
        raise OSError(f"loop_initializer={name} {cannot_travel(error)}") from error


loop_failure: list[BaseException] = []
"""In a worker: the exception of its loop_initializer, which it reports from asyncio's own loop."""


def make_loop(initializer: bytes) -> Any:
    """Make the loop of a worker, in the child; asyncio's own, to report it, if that fails."""
    try:
        return pickle.loads(initializer)()
    except BaseException as error:  # noqa: BLE001  reported by the worker, to the host
        import asyncio

        loop_failure.append(error)
        return asyncio.new_event_loop()


def workers_module(name: str) -> ModuleType:
    """Import a module of the workers' package, whose name is written only here."""
    return importlib.import_module(f"aioscheduler_workers.{name}")


def _run(unit: Unit) -> None:
    """Run the worker in the child. A process forked by a task also leaves by here if it raises."""
    own = os.getpid()
    try:
        status = aiomultiprocess.core.Process.run_async(unit)
    except BaseException as error:
        if os.getpid() != own:
            workers_module("forked").end_child(error)
        _, _, box, _ = unit.args
        box.write_failure(error)
        raise
    if status:
        sys.exit(status)


async def _run_worker(
    reader: Connection, writer: Connection, box: BlackBox, config: WorkerConfig
) -> int | None:
    """Run the worker's main, in the child."""
    # An import statement, for tools that pack programs to find.
    from aioscheduler_workers.main import main

    return await main(reader, writer, box, config)


Alive = dict[WorkerProcess, list[int]]
"""The processes of a manager, with the descriptors of their pipes.

Only the one who removes a process from it ends that process: the loop, when the process has died,
or the thread in which the interpreter exits.
"""


def end_workers(alive: Alive) -> None:
    """End the workers of a dropped manager, or at the interpreter's exit. Blocks briefly.

    When the interpreter exits, a loop may still run in another thread. Nothing that it uses is
    closed, and it is not notified of the deaths, or it would replace or report the workers.
    """
    with starting:  # no process is about to enter `alive`, and at the exit none will follow
        taken = []
        while alive:
            with suppress(KeyError):  # the loop was faster
                taken.append(alive.popitem())
    exiting = is_exiting()
    for _, descriptors in taken:
        # Either way the worker reads the end of its pipe.
        if exiting:
            _silence(descriptors)
        else:
            abandon(descriptors)
    processes = [process.aio_process for process, _ in taken]
    _wait(processes, EXIT_GRACE)
    for process in processes:
        process.kill()
    _wait(processes, REAP_TIME)
    if not exiting:
        for process in processes:
            process.release()


def _silence(descriptors: list[int]) -> None:
    """Close a pipe but keep its descriptors valid: another file must not get their numbers."""
    with suppress(OSError):  # no descriptor is left for it: the workers are killed anyway
        null = os.open(os.devnull, os.O_RDWR)
        for fd in descriptors:
            if fd >= 0:
                os.dup2(null, fd, inheritable=False)
        os.close(null)


def _wait(processes: Iterable[SpawnProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not all(process.has_ended for process in processes) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
