"""Nodes that are processes of this machine, for the tests of outposts, and tasks to run there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from aioscheduler import Manager, State, Task
from aioscheduler._outpost.engine import Engine

LAUNCHER = str(Path(__file__).with_name("outpost_launcher.py"))


class Far:
    """A maker of engines, which knows the processes behind them.

    Args:
        folder: The folder for its notes.
    """

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.notes.touch()
        self.history = folder / "history"
        self.history.touch()

    def engine(self, nodes: int = 1, workers: int = 1, **settings: Any) -> Engine:
        """Make an engine; `lost_after`, `code_version` and `command` are fields of it."""
        own: dict[str, Any] = {
            k: settings.pop(k) for k in ("lost_after", "command") if k in settings
        }
        code_version = settings.pop("host_code_version", None)
        if (certificate := settings.pop("host_certificate", None)) is not None:
            own["ssl"] = partial(tls, certificate, server=False)
        settings = {"notes": str(self.notes), "path": os.pathsep.join(sys.path), **settings}
        command = own.pop("command", [sys.executable, LAUNCHER])
        return Engine(nodes, workers, command, settings, code_version=code_version, **own)

    def noted(self) -> list[Any]:
        """Return what the launcher noted: a number and a pid, or "own" and its own pid."""
        return [json.loads(line) for line in self.notes.read_text().splitlines()]

    def nodes(self) -> list[int]:
        """Return the pids of all outposts so far."""
        return [pid for what, pid in self.noted() if what != "own"]

    def launchers(self) -> list[int]:
        """Return the pids of all launchers so far."""
        return [pid for what, pid in self.noted() if what == "own"]

    def starts(self) -> list[str]:
        """Return the starts that tasks have written."""
        return self.history.read_text().split()

    async def hold(self, manager: Manager, key: int | None = None) -> Task[Any]:
        """Schedule a task that does not end, and wait until it has really begun."""
        word = f"held{len(self.starts())}-{key}"
        task = manager.schedule(begin(str(self.history), word, 3600), key=key)
        await until(lambda: word in self.starts())
        return task

    def end(self) -> None:
        """Kill what a test may have left, each process by its pid."""
        for pid in [*self.launchers(), *self.nodes()]:
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if any("outpost_" in word for word in process.cmdline()):
                    process.kill()
                    process.wait(10)


def make_certificate(folder: Path) -> str:
    """Make a certificate for this machine, with its key in the same file."""
    path = folder / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "-", "-days", "2",
         "-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1", "-out", "-"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(made.stdout)
    return str(path)


def tls(certificate: str, server: bool) -> ssl.SSLContext:
    """Make a context for both ends that shows this certificate, and trusts no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


# ---- tasks


async def give(value: Any) -> Any:
    return value


async def pid() -> int:
    return os.getpid()


async def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def note(history: str, word: str) -> None:
    """Note a start, in one write."""
    fd = os.open(history, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{word}\n".encode())
    os.close(fd)


async def begin(history: str, word: str, seconds: float = 0.0) -> str:
    note(history, word)
    await asyncio.sleep(seconds)
    return word


# ---- for tests


async def until(done: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.005)


async def running(task: Task[Any]) -> Task[Any]:
    await until(lambda: task.state is State.RUNNING)
    return task


def pids(manager: Manager) -> list[int]:
    """Return the figures of the worker processes, as the manager knows them."""
    return [stats.pid for stats in manager.stats().workers if stats.pid is not None]


def alive(pid: int) -> bool:
    """Return whether a process runs, and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


class Proxy:
    """A proxy of a connection: it passes bytes on, swallows them, or resets both ends."""

    def __init__(self, to: Path) -> None:
        self.to = to
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.swallows = False
        self.writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._meet, sock=self.listener)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self.to.read_text(encoding="utf-8").split()
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        self.writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if not self.swallows:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    def reset(self) -> None:
        for writer in self.writers:
            with suppress(OSError):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()

    async def close(self) -> None:
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0.05)
