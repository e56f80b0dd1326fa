"""The outposts of one manager: their connections, by worker, and the launcher that starts them.

Assembly ─► process_maker ─► OutpostWorkerHandle ─► connection ─► Connection ─► Launcher
Fleet ─► look_after, stop, close, abandon
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .._processes.process import Alive
from .._processes.workerconfig import WorkerConfig
from .._processes.workerhandle import MakeWorkerHandle
from .._routing.forwardedlogs import read_levels
from .connection import Connection
from .engine import Engine
from .launcher import Launcher
from .versions import versions
from .workerhandle import OutpostWorkerHandle

log: logging.Logger = logging.getLogger("aioscheduler")


class Outposts:
    """The outposts of one manager; implements `assembly.Elsewhere`.

    Args:
        engine: The manager's engine.
        manager: The manager's id.
        fenced: Whether tasks that had begun on a lost node may run again elsewhere.
    """

    def __init__(self, engine: Engine, manager: str, fenced: bool) -> None:
        self._engine = engine
        self._fenced = fenced
        self._here = versions(engine.code_version)
        self._connections: dict[int, Connection] = {}  # the present ones, by outpost
        self._all: set[Connection] = set()  # these, and those whose end is not reported yet
        settings = {**engine.settings, "manager": manager}
        self._launcher = Launcher(engine.command, settings, self._refused)

    def process_maker(
        self, config: WorkerConfig, loop_initializer: Callable[[], Any] | None, alive: Alive
    ) -> MakeWorkerHandle:
        """Return the function that makes the handles of a worker's slot."""
        config = replace(config, confirmed=True)
        levels = read_levels if config.forward_logs else dict
        return partial(OutpostWorkerHandle, config, loop_initializer, levels, self.connection)

    def connection(self, worker: int, loop: asyncio.AbstractEventLoop) -> Connection:
        """Return the connection for a worker's slot; if there is none, request an outpost.

        Raises:
            OSError: The launcher cannot be started.
        """
        index = worker // self._engine.workers_per_node
        found = self._connections.get(index)
        if found is None or found.cause:
            self._launcher.start(loop)
            found = Connection(
                loop,
                self._here,
                self._engine.lost_after,
                self._fenced,
                self._engine.ssl,
                self._has_ended,
            )
            self._connections[index] = found
            self._all.add(found)
            self._launcher.ask(found)
        return found

    def look_after(self) -> None:
        """Look after all connections, once a tick."""
        for connection in list(self._all):
            connection.look_after()

    def stop(self) -> None:
        """Report lost nodes at once from now on, as no worker will be replaced."""
        self._fenced = False
        for connection in list(self._all):
            connection.unfence()

    async def close(self) -> None:
        """End all outposts, whose workers have ended, and the launcher."""
        for connection in list(self._all):
            connection.lost("the manager was closed")
        await self._launcher.close()

    def abandon(self) -> None:
        """End them without the loop, which is closed or will not run again."""
        for connection in self._all:
            connection.let_go("the event loop of its manager is closed")
        self._all.clear()
        self._launcher.abandon()

    def _has_ended(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._launcher.end(connection)

    def _refused(self, why: str) -> None:
        """End all connections: the first launcher can start no outpost."""
        for connection in list(self._all):
            connection.lost(why)
