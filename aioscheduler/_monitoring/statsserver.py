"""The private socket on which a manager tells its stats, and how others of its user find it.

    host process                                  │ any process of the same user
                                                  │
    Manager.stats() ─► StatsServer ─► <pid>-<manager>.sock ─► snapshots() ─► aioscheduler top

A connection is answered with one JSON document, and closed. Rules of this file:

1. Only the user can reach a socket: its folder has mode 0700 and is the user's own, or it is not
   used; the socket has mode 0600. Nothing listens on a network.
2. A socket gets its name when it listens, so one that refuses is left over from a process that
   was killed, and is removed by whoever finds it.
3. Being watched is never worth a failure: what goes wrong here is logged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import re
import socket
import stat
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .._scheduling.alarm import TICK
from ..stats import HostStats, ManagerStats, WorkerStats
from . import processmeter

log: logging.Logger = logging.getLogger("aioscheduler")

VARIABLE = "AIOSCHEDULER_MONITOR"
PATIENCE = 2.0  # seconds a reader may take

_NAME = re.compile(r"\d+-[0-9a-z]+\.sock")


def wanted() -> bool:
    """Whether the environment asks for every manager to be watched."""
    return os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no")


class StatsServer:
    """Answers whoever of this user asks.

    Args:
        manager: The manager's id.
        stats: Gives what is told.
        repeats: Gives what is told of repeats: those that stand still, and the next ones.
    """

    def __init__(
        self,
        manager: str,
        stats: Callable[[], ManagerStats],
        repeats: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._name = f"{os.getpid()}-{manager}.sock"
        self._stats = stats
        self._repeats = repeats
        self._listener: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._remove: weakref.finalize[Any, Any] | None = None
        self._closed = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen; if that cannot be, say so in the log."""
        try:
            self._listener = self._listen()
        except OSError as error:
            log.warning("this manager cannot be watched: %s", error)
            return
        self._open(loop, self._listener)

    def _open(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        if not self._closed:
            self._opening = loop.create_task(self._serve(listener))
            self._opening.add_done_callback(partial(self._opened, loop, listener))

    def _opened(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, opening: asyncio.Task[None]
    ) -> None:
        if opening.cancelled():  # by who cancels all tasks of the loop, perhaps as that ends
            if not self._closed:
                loop.call_later(TICK, self._open, loop, listener)
        elif error := opening.exception():
            log.warning("this manager cannot be watched: %s", error)

    def close(self) -> None:
        """Listen no more, and remove the socket."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        # In a forked child the listener is closed already, and unknown to the loop.
        if self._server is not None and self._listener and self._listener.fileno() >= 0:
            self._server.close()
        if self._remove is not None:
            self._remove()

    def _listen(self) -> socket.socket:
        refusals = []
        for folder in _folders():
            try:
                listener, path = _listen_in(folder, self._name)
            except OSError as refusal:  # a path that is too long, a folder of somebody else's
                refusals.append(str(refusal))
                continue
            # Also at the end of the interpreter.
            self._remove = weakref.finalize(self, _remove_own, path, os.getpid(), listener)
            _listeners.add(listener)
            return listener
        raise OSError("; ".join(refusals))

    async def _serve(self, listener: socket.socket) -> None:
        # In two steps, so that there is a server to close however soon this is cancelled.
        if self._server is None:
            self._server = await asyncio.start_unix_server(
                self._answer, sock=listener, start_serving=False
            )
        await self._server.start_serving()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            told = self._stats().as_dict() | {"next_repeats": self._repeats()}
            writer.write(json.dumps(told, allow_nan=False).encode())
            with suppress(OSError, TimeoutError):  # whoever asked has gone, or takes his time
                async with asyncio.timeout(PATIENCE):
                    await writer.drain()
        finally:
            writer.close()


def _listen_in(folder: Path, name: str) -> tuple[socket.socket, Path]:
    folder.mkdir(mode=0o700, exist_ok=True)
    _check_private(folder)
    path, unborn = folder / name, folder / f"{name}.new"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unborn.unlink(missing_ok=True)
        listener.bind(str(unborn))
        unborn.chmod(0o600)
        listener.listen()
        unborn.rename(path)
    except BaseException:
        listener.close()
        with suppress(OSError):
            unborn.unlink(missing_ok=True)
        raise
    return listener, path


class Snapshot(NamedTuple):
    """What a manager told.

    Attributes:
        pid: Of its process.
        manager: Its id.
        stats: `ManagerStats.as_dict()`, and `next_repeats`; None if it did not answer in time: its
            process is stopped, or a task keeps its loop busy.
    """

    pid: int
    manager: str
    stats: dict[str, Any] | None


def snapshots(timeout: float = 1.0) -> list[Snapshot]:
    """Ask every manager of this user that has `monitor=True`. Blocks.

    Args:
        timeout: Seconds that they may take to answer; all are asked at once.
    """
    deadline = time.monotonic() + timeout
    found: list[Snapshot] = []

    def ask(path: Path) -> None:
        snapshot = _take_snapshot(path, deadline)
        if snapshot is not None:
            found.append(snapshot)

    # All at once, so that those that do not answer cost no more than one; and in threads that
    # an interpreter does not wait for at its end, as it does for those of a pool.
    threads = [threading.Thread(target=ask, args=(path,), daemon=True) for path in _sockets()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found, key=lambda snapshot: snapshot[:2])


def _take_snapshot(path: Path, deadline: float) -> Snapshot | None:
    pid, _, manager = path.stem.partition("-")
    try:
        stats = json.loads(_ask(path, deadline), parse_constant=_refuse)
    except FileNotFoundError:  # closed just now
        return None
    except ConnectionRefusedError:
        # Linux refuses where nobody listens; others also when too many wait to be answered.
        if sys.platform == "linux" or not processmeter.exists(int(pid)):
            with suppress(OSError):
                path.unlink()
            return None
        stats = None
    except (OSError, ValueError, RecursionError):
        stats = None
    return Snapshot(int(pid), manager, stats if _is_told_by_us(stats) else None)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _is_told_by_us(stats: Any) -> bool:
    """Whether an answer has the shape of this version's; another may be running."""
    return (
        _has_fields(stats, ManagerStats)
        and _has_fields(stats["host"], HostStats)
        and isinstance(stats["workers"], list)
        and all(_has_fields(worker, WorkerStats) for worker in stats["workers"])
        and isinstance(stats.get("next_repeats"), list)
        and all(map(is_repeat, stats["next_repeats"]))
    )


def is_repeat(told: Any) -> bool:
    """Whether it has what `Repeats.shown` gives of one."""
    return (
        isinstance(told, dict)
        and all(isinstance(told.get(key), str) for key in ("id", "rule", "name"))
        and all(isinstance(told.get(key), str | None) for key in ("next", "last", "reason"))
        and all(type(told.get(key)) is int for key in ("ran", "skipped", "running"))
        and isinstance(told.get("paused"), bool)
    )


def _has_fields(told: Any, kind: type[Any]) -> bool:
    """Whether it has what the dataclass has; numbers where that has numbers."""
    return isinstance(told, dict) and all(
        field.name in told
        and (field.type not in ("int", "float") or type(told[field.name]) in (int, float))
        for field in dataclasses.fields(kind)
    )


def _ask(path: Path, deadline: float) -> bytes:
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_left(deadline))
        connection.connect(str(path))
        while part := connection.recv(1 << 16):
            answer += part
            connection.settimeout(_left(deadline))
    return bytes(answer)


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _sockets() -> Iterator[Path]:
    with suppress(OSError):
        for folder in _folders():
            with suppress(OSError):
                _check_private(folder)
                for path in folder.iterdir():
                    if _NAME.fullmatch(path.name) and path.is_socket():
                        yield path


def _folders() -> list[Path]:
    """Where sockets may be; new ones go into the first.

    Raises:
        OSError: This system has no such sockets.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        raise OSError("this system has no Unix sockets")
    folders = [Path(tempfile.gettempdir()) / f"aioscheduler-{os.getuid()}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isdir(runtime):
        folders.insert(0, Path(runtime) / "aioscheduler")
    return folders


def _check_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise OSError(f"{folder} is not a folder that only you can open; remove it")


def _remove_own(path: Path, owner: int, listener: socket.socket) -> None:
    listener.close()
    if os.getpid() == owner:
        path.unlink(missing_ok=True)


# A forked child must not keep the socket open that its parent listens on.
_listeners: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_all() -> None:
    for listener in list(_listeners):
        listener.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
