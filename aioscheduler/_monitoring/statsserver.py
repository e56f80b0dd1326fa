"""The private socket on which a manager serves its stats, and how other processes find it.

    host process                                  │ any process of the same user
                                                  │
    Manager.stats() ─► StatsServer ─► <pid>-<manager>.sock ─► snapshots() ─► aioscheduler top

A connection is answered with one JSON document, and closed. Rules of this file:

1. Only the user can reach a socket: its folder has mode 0700 and belongs to the user, or it is not
   used; the socket has mode 0600. Nothing listens on a network.
2. A socket gets its name only when it listens, so one that refuses was left by a killed process,
   and the next reader removes it.
3. Monitoring never causes a failure: errors here are logged.
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
    """Return whether the environment asks every manager to serve its stats."""
    return os.environ.get(VARIABLE, "").lower() not in ("", "0", "false", "no")


class StatsServer:
    """Serves a manager's stats to processes of the same user.

    Args:
        manager: The manager's id.
        stats: Returns the stats.
        repeats: Returns the repeats to show: the paused ones and the next ones.
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
        """Begin to listen, or log why that is impossible."""
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
        """Stop listening, and remove the socket."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        # In a forked child the listener is already closed, and the loop does not know it.
        if self._server is not None and self._listener and self._listener.fileno() >= 0:
            self._server.close()
        if self._remove is not None:
            self._remove()

    def _listen(self) -> socket.socket:
        refusals = []
        for folder in _folders():
            try:
                listener, path = _listen_in(folder, self._name)
            except OSError as refusal:  # too long a path, somebody else's folder
                refusals.append(str(refusal))
                continue
            # Also at the end of the interpreter.
            self._remove = weakref.finalize(self, _remove_own, path, os.getpid(), listener)
            _listeners.add(listener)
            return listener
        raise OSError("; ".join(refusals))

    async def _serve(self, listener: socket.socket) -> None:
        # In two steps, so that there is a server to close however early this is cancelled.
        if self._server is None:
            self._server = await asyncio.start_unix_server(
                self._answer, sock=listener, start_serving=False
            )
        await self._server.start_serving()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = self._stats().as_dict() | {"next_repeats": self._repeats()}
            writer.write(json.dumps(answer, allow_nan=False).encode())
            with suppress(OSError, TimeoutError):  # the reader is gone, or slow
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
    """The answer of a manager.

    Attributes:
        pid: The pid of its process.
        manager: Its id.
        stats: `ManagerStats.as_dict()`, plus `next_repeats`; None if it did not answer in time: its
            process is stopped, or a task keeps its loop busy.
    """

    pid: int
    manager: str
    stats: dict[str, Any] | None


def snapshots(timeout: float = 1.0) -> list[Snapshot]:
    """Return the answers of this user's managers that have `monitor=True`. Blocks.

    Args:
        timeout: Seconds that they may take to answer; all are asked at once.
    """
    deadline = time.monotonic() + timeout
    found: list[Snapshot] = []

    def ask(path: Path) -> None:
        snapshot = _take_snapshot(path, deadline)
        if snapshot is not None:
            found.append(snapshot)

    # All at once, so that several silent ones cost no more than one; and in daemon threads, as
    # the interpreter would wait at its exit for those of a pool.
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
        # Linux refuses only if nobody listens; other systems also if the backlog is full.
        if sys.platform == "linux" or not processmeter.exists(int(pid)):
            with suppress(OSError):
                path.unlink()
            return None
        stats = None
    except (OSError, ValueError, RecursionError):
        stats = None
    return Snapshot(int(pid), manager, stats if _is_of_this_version(stats) else None)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_of_this_version(stats: Any) -> bool:
    """Return whether an answer has this version's format; the manager's may be another."""
    return (
        _has_fields(stats, ManagerStats)
        and _has_fields(stats["host"], HostStats)
        and isinstance(stats["workers"], list)
        and all(_has_fields(worker, WorkerStats) for worker in stats["workers"])
        and isinstance(stats.get("next_repeats"), list)
        and all(map(is_repeat, stats["next_repeats"]))
    )


def is_repeat(item: Any) -> bool:
    """Return whether an item of `next_repeats` has the format of `Repeats.shown`."""
    return (
        isinstance(item, dict)
        and all(isinstance(item.get(key), str) for key in ("id", "rule", "name"))
        and all(isinstance(item.get(key), str | None) for key in ("next", "last", "reason"))
        and all(type(item.get(key)) is int for key in ("ran", "skipped", "running"))
        and isinstance(item.get("paused"), bool)
    )


def _has_fields(item: Any, kind: type[Any]) -> bool:
    """Return whether an item has the fields of a dataclass, with numbers where that has them."""
    return isinstance(item, dict) and all(
        field.name in item
        and (field.type not in ("int", "float") or type(item[field.name]) in (int, float))
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
    """Return the folders where sockets may be; new ones go into the first.

    Raises:
        OSError: This system has no Unix sockets.
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


# A forked child must not keep open the socket on which its parent listens.
_listeners: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_all() -> None:
    for listener in list(_listeners):
        listener.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
