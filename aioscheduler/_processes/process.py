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
        reader: Where it reads frames.
        writer: Where it writes frames.
        box: What survives it.
        config: For the worker.
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
    """Return what `make_loop` reads, by value.

    Raises:
        OSError: It cannot travel.
    """
    try:
        return cloudpickle.dumps(loop_initializer)  # type: ignore[no-any-return]
    except Exception as error:
        name = getattr(loop_initializer, "__qualname__", repr(loop_initializer))
        raise OSError(f"loop_initializer={name} {cannot_travel(error)}") from error


loop_failure: list[BaseException] = []
"""In a worker: what its loop_initializer raised. It then runs on asyncio's loop to report it."""


def make_loop(initializer: bytes) -> Any:
    """Make the loop of a worker, in the child; asyncio's own if that fails, to report it."""
    try:
        return pickle.loads(initializer)()
    except BaseException as error:  # noqa: BLE001  reported by the worker, to the host
        import asyncio

        loop_failure.append(error)
        return asyncio.new_event_loop()


def workers_module(name: str) -> ModuleType:
    """Import a module of the workers' package, which is named here and nowhere else."""
    return importlib.import_module(f"aioscheduler_workers.{name}")


def _run(unit: Unit) -> None:
    """In the child; and in what its tasks fork, if they raise out of the loop."""
    own = os.getpid()
    try:
        status = aiomultiprocess.core.Process.run_async(unit)
    except BaseException as error:
        if os.getpid() != own:
            workers_module("forked").end_child(error)
        _, _, box, _ = unit.args
        box.tell(error)
        raise
    if status:
        sys.exit(status)


async def _run_worker(
    reader: Connection, writer: Connection, box: BlackBox, config: WorkerConfig
) -> int | None:
    """In the child."""
    # Imported by a statement, which those who pack programs find.
    from aioscheduler_workers.main import main

    return await main(reader, writer, box, config)


Alive = dict[WorkerProcess, list[int]]
"""The processes of a manager, with the descriptors of their pipes.

Who takes a process out of it ends that process, and nobody else: the loop, when it has died, or
the thread in which the interpreter exits.
"""


def end_workers(alive: Alive) -> None:
    """End the workers of a manager that is gone, or with the interpreter; this blocks, briefly.

    When the interpreter exits, a loop may still run in another thread. Nothing that it uses is
    taken from it, and it is not told of the deaths: it would replace them, or report them.
    """
    with starting:  # no process is on its way into `alive`, and none follows if this is the exit
        taken = []
        while alive:
            with suppress(KeyError):  # the loop was faster
                taken.append(alive.popitem())
    exiting = is_exiting()
    for _, descriptors in taken:
        # Either way a worker reads it as the end.
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
    """Let go of a pipe, whose descriptors stay valid: another file must not get their numbers."""
    with suppress(OSError):  # no descriptor is left for this: the workers are killed
        null = os.open(os.devnull, os.O_RDWR)
        for fd in descriptors:
            if fd >= 0:
                os.dup2(null, fd, inheritable=False)
        os.close(null)


def _wait(processes: Iterable[SpawnProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not all(process.has_ended for process in processes) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
