"""An outpost, on its node: it starts worker processes for one host, and moves their bytes.

    host ══ TCP ══ Messages ─► Outpost ─► Slot: handle, RelayPipe ══ pipes ══ worker process

It ends, with its workers, when its host's connection does, or if no host comes within `HOST_TIME`:
nothing else looks after it. If it is killed its workers end, too, as they end with their parent.
Nothing is unpickled before the host has proven itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pickle
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .._monitoring.processmeter import ProcessMeter
from .._processes.process import REAP_TIME, Alive, make_loop
from .._processes.workerhandle import LocalWorkerHandle
from .._scheduling.alarm import next_tick
from .._transport.pipe import Pipe
from .messages import PROOF_TIME, Item, Messages
from .outgoing import PART, WINDOW, Outgoing
from .versions import versions

log: logging.Logger = logging.getLogger("aioscheduler")

HOST_TIME = 60.0  # seconds within which a host must have proven itself
STRANGERS = 100  # unproven connections at a time


async def serve(
    secret: bytes,
    host: str,
    ports: tuple[int, int] | None,
    code_version: str | None,
    ssl: ssl.SSLContext | None,
    listening: Callable[[str, int], None],
) -> None:
    """Run an outpost; return when the host's connection and all workers have ended.

    Args:
        secret: The secret that the host must prove to know.
        host: The only address of this node to listen at.
        ports: The first and last port that may be used; None: any.
        code_version: The version of the tasks' code on this node.
        ssl: The context for TLS; None: there is none.
        listening: Called with address and port, to be passed on to the host.

    Raises:
        OSError: None of the ports is free, or the address is not of this machine.
    """
    loop = asyncio.get_running_loop()
    listener = _listen(host, ports)
    outpost = Outpost(loop, secret, ssl)
    entrance = loop.create_task(outpost.admit(listener))
    try:
        listening(*listener.getsockname()[:2])
        async with asyncio.timeout(HOST_TIME):
            await outpost.host_came
    except TimeoutError:
        log.warning("no host has come to this outpost in %.0f s; it ends", HOST_TIME)
        return
    finally:
        entrance.cancel()
        await asyncio.wait([entrance])
        listener.close()
    try:
        outpost.greet(versions(code_version))
        await outpost.host_went
    finally:
        await outpost.end()


def _listen(host: str, ports: tuple[int, int] | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    first, last = ports or (0, 0)
    for port in range(first, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(STRANGERS)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE or port == last:
                raise
        else:
            listener.setblocking(False)
            return listener
    raise OSError(errno.EADDRINUSE, f"none of the ports {first} to {last} is free at {host}")


class RelayPipe(Pipe):
    """The outpost's end of a worker's pipe, which reads bytes and no frames."""

    def read_on(self, on: bool) -> None:
        """Begin or stop to read; unread bytes stay in the pipe."""
        if self._loop is None or self.descriptors[0] < 0:
            return
        if on:
            self._loop.add_reader(self.descriptors[0], self._readable)
        else:
            self._loop.remove_reader(self.descriptors[0])

    def _take_bytes(self, data: bytes) -> bool:
        self._receive(data)  # type: ignore[arg-type]  # bytes, not a frame
        return True


class Slot:
    """The slot of one worker.

    Args:
        generation: Which process of the slot this is, from 0.

    Attributes:
        process: The handle of its process; None until that is started.
        sent: Bytes from its pipe sent to the host.
        acked: How many of these the host has taken.
        taken: Bytes from the host written to its pipe.
        reads: Whether its pipe is read.
    """

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.process: LocalWorkerHandle | None = None
        self.sent = self.acked = self.taken = 0
        self.reads = True

    @property
    def pipe(self) -> RelayPipe:
        """The pipe to its process."""
        assert self.process is not None
        assert isinstance(self.process.pipe, RelayPipe)
        return self.process.pipe


class Outpost:
    """The workers of one host on this node.

    Args:
        loop: The running loop.
        secret: The secret that the host must prove to know.
        tls: The context for TLS; None: there is none.

    Attributes:
        host_came: Done when a host has proven itself.
        host_went: Done when its connection has ended.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, secret: bytes, tls: ssl.SSLContext | None
    ) -> None:
        self.host_came: asyncio.Future[None] = loop.create_future()
        self.host_went: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._secret = secret
        self._tls = tls
        self._messages: Messages | None = None
        self._outgoing = Outgoing(loop, self._send)
        self._slots: dict[int, Slot] = {}
        self._alive: Alive = {}
        self._process_meter = ProcessMeter()
        self._lost_after: float | None = None
        self._ticker: asyncio.TimerHandle | None = None

    # ---- its host

    async def admit(self, listener: socket.socket) -> None:
        """Accept connections until one of them, the host's, has proven itself."""
        strangers: set[asyncio.Task[None]] = set()
        try:
            while not self.host_came.done():
                sock, _ = await self._loop.sock_accept(listener)
                if len(strangers) >= STRANGERS:
                    sock.close()
                    continue
                stranger = self._loop.create_task(self._meet(sock))
                strangers.add(stranger)
                stranger.add_done_callback(strangers.discard)
        finally:
            for stranger in strangers:
                stranger.cancel()

    async def _meet(self, sock: socket.socket) -> None:
        messages = Messages(sock, self._secret, b"node", self._take, self._go_on, self._lost)
        try:
            await self._loop.connect_accepted_socket(
                lambda: messages,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else PROOF_TIME,
            )
            await messages.proven
        except OSError as error:
            log.warning("a connection to this outpost was refused: %s", error)
            sock.close()
            return
        except BaseException:
            messages.abort("another was faster")
            sock.close()
            raise
        if self.host_came.done():
            messages.abort("there is a host")
            return
        self._messages = messages
        self.host_came.set_result(None)

    def greet(self, here: dict[str, str | None]) -> None:
        """Send the host the versions of this node, and begin to tick."""
        self._outgoing.post(Item.HELLO, here)
        self._tick()

    def _lost(self, cause: str) -> None:
        if not self.host_went.done():
            self.host_went.set_result(None)

    async def end(self) -> None:
        """Kill all workers, and return when they have ended."""
        if self._messages is not None:
            self._messages.abort("this outpost ends")
        if self._ticker is not None:
            self._ticker.cancel()
        self._outgoing.stop()
        for slot in self._slots.values():
            if slot.process is not None:
                slot.process.kill()
        deadline = self._loop.time() + REAP_TIME + 1
        while self._alive and self._loop.time() < deadline:  # noqa: ASYNC110  a plain dict
            await asyncio.sleep(0.01)

    def _send(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        if self._messages is not None:
            self._messages.send(items, acks)

    def _tick(self) -> None:
        self._ticker = self._loop.call_at(next_tick(self._loop.time()), self._tick)
        if self._messages is None:
            return
        if self._lost_after is not None and self._messages.silence() > self._lost_after:
            self._messages.abort("nothing has been heard of the host's machine")
            return
        processes = [
            (worker, slot.generation, slot.process)
            for worker, slot in self._slots.items()
            if slot.process is not None
        ]
        usage = self._process_meter.read(
            {process.pid for _, _, process in processes if process.pid is not None}
        )
        for worker, generation, process in processes:
            process.pipe.check()
            if process.pid in usage:
                self._outgoing.post(Item.USAGE, worker, generation, *usage[process.pid])

    # ---- from the host

    def _take(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        """Handle a message.

        Raises:
            Exception: No host of ours sends such a message; this ends the connection.
        """
        for worker, (generation, total) in acks.items():
            slot = self._slots.get(worker)
            if slot is not None and slot.generation == generation:
                slot.acked = max(slot.acked, total)
                self._read_on(slot)
        for kind, *fields in items:
            if kind == Item.DATA:
                self._write(*fields)
            elif kind == Item.CLOCK:
                times = time.monotonic_ns(), time.time_ns()
                self._outgoing.post(Item.CLOCK, *fields, *times)
            elif kind == Item.START:
                self._start(*fields)
            elif kind == Item.KILL:
                self._kill(*fields)
            elif kind == Item.WELCOME:
                self._lost_after = float(fields[0])
                assert self._messages is not None
                self._messages.tune(self._lost_after)
            else:
                raise ValueError(f"there is no item {kind!r}")

    def _start(self, worker: int, generation: int, packed: bytes, loop: bytes | None) -> None:
        config = replace(pickle.loads(packed), host=os.getpid())
        slot = self._slots[worker] = Slot(generation)
        process = LocalWorkerHandle(
            config,
            None if loop is None else partial(make_loop, loop),
            self._alive,
            generation,
            partial(self._read, worker, slot),
            partial(self._ended, worker, slot),
            RelayPipe,
        )
        try:
            process.start(self._loop)
        except Exception as error:  # noqa: BLE001  whatever it is, the host must know
            del self._slots[worker]
            cause = f"it cannot be started: {error}"
            self._outgoing.post(Item.ENDED, worker, generation, None, cause, None, None)
            return
        slot.process = process
        self._outgoing.post(Item.STARTED, worker, generation, process.pid)

    def _write(self, worker: int, generation: int, data: bytes) -> None:
        slot = self._slots.get(worker)
        if slot is not None and slot.generation == generation:
            slot.pipe.send(data, partial(self._written, worker, slot, len(data)))
            slot.pipe.flush()

    def _kill(self, worker: int, generation: int) -> None:
        slot = self._slots.get(worker)
        if slot is not None and slot.generation == generation and slot.process is not None:
            slot.process.kill()
        self._outgoing.post(Item.KILLED, worker, generation)

    # ---- from the workers

    def _written(self, worker: int, slot: Slot, count: int) -> None:
        slot.taken += count
        self._outgoing.took(worker, slot.generation, count, slot.taken)

    def _read(self, worker: int, slot: Slot, data: Any) -> None:
        slot.sent += len(data)
        for start in range(0, len(data), PART):
            part = data[start : start + PART]
            self._outgoing.post(Item.DATA, worker, slot.generation, part, size=len(part))
        self._read_on(slot)

    def _ended(self, worker: int, slot: Slot, exitcode: int | None, cause: str) -> None:
        """Report the end of a process, after all it wrote was read, with its black box open."""
        process = slot.process
        if self._slots.get(worker) is slot:
            del self._slots[worker]
        begun, blocked = None, None
        if process is not None:
            try:
                begun = [process.begun(n) for n in range(process.schedulers)]
                blocked = process.blocked()
            except Exception:
                log.exception("the black box of worker %d cannot be read", worker)
        self._outgoing.post(Item.ENDED, worker, slot.generation, exitcode, cause, begun, blocked)

    def _go_on(self) -> None:
        for slot in self._slots.values():
            self._read_on(slot)

    def _read_on(self, slot: Slot) -> None:
        """Read a worker's pipe, unless too much of it is under way already."""
        assert self._messages is not None
        reads = self._messages.has_room and slot.sent - slot.acked < WINDOW
        if reads is not slot.reads and slot.process is not None:
            slot.reads = reads
            slot.pipe.read_on(reads)
