"""The host's side of one outpost, from the request to its end.

    requested ─ started ─► connecting ─ proof ─ HELLO ─ the clock is measured ─► up ──► over
      └────────────────────────┴── it fails, or its versions differ ──────────────────► over

Its end is that of all its workers, at once, as no task begins there before this host confirms it.
It has ended when its stream has, when the launcher says so, when its machine has been silent for
too long (`Messages.silence`), or when it does not answer a kill.

Where tasks that had begun will run again elsewhere (*fenced*), the end of its workers is reported
only when the launcher has said that it is dead, or when it must itself have noticed that it is cut
off.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from .._scheduling.alarm import TICK
from .messages import Item, Messages
from .offset import Offset
from .outgoing import Outgoing
from .versions import difference
from .workerhandle import OutpostWorkerHandle

log: logging.Logger = logging.getLogger("aioscheduler")

CONNECT_TIME = 20.0  # seconds
KILL_TIME = 2.0  # seconds from a kill until the outpost must have answered
FENCE_MARGIN = 5.0  # seconds beyond `lost_after` until the other side has noticed, too
SAMPLES = 8  # measurements of the clock before the first worker starts
STRAY = 100_000  # ns by which a lead may exceed the one that workers have
LARGE_OFFSET = 0.1  # seconds by which a node's time of day may be off without a warning

_REACH = (
    "the host must be able to connect to the nodes: look at firewalls, and at ports= of the engine"
)


class Connection:
    """One outpost.

    Args:
        loop: The running loop.
        here: The versions of this host (`versions.versions`).
        lost_after: Seconds of silence after which its machine is lost.
        fenced: Whether the end of its workers is reported only when nothing runs there any more.
        tls: Returns the context for TLS; None: there is none.
        ended: Called once, when the end of its workers is reported.

    Attributes:
        end: An object that identifies this end for all workers that share it.
        secret: The outpost's secret, which the launcher takes there.
        node: Its node's name, once it is known.
        cause: Why it is over; "": it is not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        here: Mapping[str, object],
        lost_after: float,
        fenced: bool,
        tls: Callable[[], ssl.SSLContext] | None,
        ended: Callable[[Connection], None],
    ) -> None:
        self.end: object = object()
        self.secret: bytes = secrets.token_bytes(32)
        self.node: str | None = None
        self.cause: str = ""
        self._loop = loop
        self._here = here
        self._lost_after = lost_after
        self._fenced = fenced
        self._tls = tls
        self._ended = ended
        self._processes: dict[int, OutpostWorkerHandle] = {}  # by worker
        self._messages: Messages | None = None
        self._outgoing = Outgoing(loop, self._send)
        self._opening: asyncio.Task[None] | None = None
        self._hello: asyncio.Future[Mapping[str, object]] = loop.create_future()
        self._offset = Offset()
        self._measured: asyncio.Future[None] | None = None
        self._sent_lead = 0
        self._is_up = False
        self._is_off = False  # whether its time of day was reported as wrong
        self._killing: dict[tuple[int, int], asyncio.TimerHandle] = {}
        self._fence: asyncio.TimerHandle | None = None

    # ---- for its worker handles (`workerhandle.Carrier`)

    @property
    def has_room(self) -> bool:
        """Whether it is up, and has room for more."""
        return self._is_up and self._messages is not None and self._messages.has_room

    def carry(self, worker: int, generation: int, data: bytes) -> None:
        """Send bytes to a worker."""
        self._outgoing.post(Item.DATA, worker, generation, data, size=len(data))

    def took(self, worker: int, generation: int, count: int, total: int) -> None:
        """Acknowledge bytes of a worker to the outpost."""
        self._outgoing.took(worker, generation, count, total)

    def add(self, process: OutpostWorkerHandle) -> None:
        """Start a process, as soon as the outpost is up."""
        self._processes[process.worker] = process
        if self._is_up:
            self._start(process)

    def kill(self, process: OutpostWorkerHandle) -> None:
        """Kill a process; if the outpost does not answer, all processes there are lost."""
        key = process.worker, process.generation
        if self.cause or self._processes.get(process.worker) is not process or key in self._killing:
            return
        if self._is_up:
            self._outgoing.post(Item.KILL, *key)
            self._wait_for_kill(key, process)
            return
        del self._processes[process.worker]
        self._loop.call_soon(process.finish, None, "")
        if not self._processes:
            self.lost("it is no longer needed")

    def _wait_for_kill(self, key: tuple[int, int], process: OutpostWorkerHandle) -> None:
        at = self._loop.time() + KILL_TIME
        self._killing[key] = self._loop.call_at(at, self._not_killed, key, process, at)

    def _not_killed(
        self, key: tuple[int, int], process: OutpostWorkerHandle, planned: float
    ) -> None:
        if self._loop.time() > planned + KILL_TIME / 4:
            # This loop was late: the answer may have arrived unread.
            self._wait_for_kill(key, process)
            return
        self.lost(f"it has not answered the kill of a worker for {KILL_TIME:.0f} s")

    # ---- its life

    def started(self, host: str, port: int, node: str) -> None:
        """Connect to the outpost, which listens there on the node of this name."""
        if not self.cause and self._opening is None:
            self.node = node
            self._opening = self._loop.create_task(self._open(host, port))

    def reported_lost(self, cause: str) -> None:
        """Accept the launcher's report that the outpost is dead, or could not be started."""
        self._fenced = False
        if not self.cause:
            self.lost(cause)
        elif self._fence is not None:
            self._release()

    def look_after(self) -> None:
        """Check once a tick that the machine answers, and measure its clock."""
        messages = self._messages
        if messages is None or not self._is_up or self.cause:
            return
        silence = messages.silence()
        if silence > self._lost_after:
            self.lost(f"nothing has been heard of its machine for {silence:.0f} s")
            return
        self._outgoing.post(Item.CLOCK, time.monotonic_ns())
        self._adjust()

    def unfence(self) -> None:
        """Report the end without waiting: no task will run again."""
        self._fenced = False
        if self._fence is not None:
            self._release()

    def lost(self, cause: str) -> None:
        """End the connection, and with it all its workers."""
        if self.cause:
            return
        self.cause = cause
        log.log(
            logging.WARNING if self._is_up and self._processes else logging.DEBUG,
            "the connection to node %s has ended: %s",
            *(self.node, cause),
        )
        self._outgoing.stop()
        for timer in self._killing.values():
            timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._messages is not None:
            self._messages.abort(cause)
        if self._fenced and self._is_up and self._processes:
            delay = self._lost_after + FENCE_MARGIN
            log.warning(
                "tasks that had begun on node %s run again when the cluster says that it is dead, "
                "or in %.0f s",
                *(self.node, delay),
            )
            self._fence = self._loop.call_later(delay, self._release)
        else:
            self._fence = self._loop.call_later(0, self._release)

    def let_go(self, cause: str) -> None:
        """End the connection without its loop, which is closed; no end is reported."""
        self.cause = self.cause or cause
        if self._messages is not None:
            self._messages.let_go()

    def _release(self) -> None:
        if self._fence is not None:
            self._fence.cancel()
            self._fence = None
        processes, self._processes = self._processes, {}
        self._ended(self)
        cause = f"node {self.node} is lost: {self.cause}" if self._is_up else self.cause
        for process in processes.values():
            process.finish(None, cause, shared=self.end)

    async def _open(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIME):
                await self._connect(host, port)
        except asyncio.CancelledError:  # of all tasks of the loop, or because it is over
            self.lost("the task that connects to its outpost was cancelled")
            raise
        except TimeoutError:
            self.lost(
                f"no answer of its outpost at {host}:{port} in {CONNECT_TIME:.0f} s; {_REACH}"
            )
        except OSError as error:
            self.lost(f"its outpost at {host}:{port} cannot be reached: {error}; {_REACH}")
        except Exception as error:  # noqa: BLE001  the context for TLS may raise anything
            self.lost(f"its outpost at {host}:{port} cannot be reached: {error!r}")

    async def _connect(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, (host, port))
            context = None if self._tls is None else self._tls()
            messages = Messages(sock, self.secret, b"host", self._take, self._go_on, self.lost)
            await self._loop.create_connection(
                lambda: messages,
                sock=sock,
                ssl=context,
                server_hostname=None if context is None else host,
            )
        except BaseException:
            sock.close()
            raise
        self._messages = messages
        messages.tune(self._lost_after)
        await messages.proven
        wrong = difference(str(self.node), self._here, await self._hello)
        if wrong:
            self.lost(wrong)
            return
        self._outgoing.post(Item.WELCOME, self._lost_after)
        for _ in range(SAMPLES):
            self._measured = self._loop.create_future()
            self._outgoing.post(Item.CLOCK, time.monotonic_ns())
            await self._measured
        self._is_up = True
        self._sent_lead = self._lead()
        for process in list(self._processes.values()):
            self._start(process)

    def _start(self, process: OutpostWorkerHandle) -> None:
        config, packed = process.order(self._sent_lead)
        size = len(config) + len(packed or b"")
        self._outgoing.post(
            Item.START, process.worker, process.generation, config, packed, size=size
        )
        process.pipe.go_on()

    # ---- from the outpost

    def _send(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        if self._messages is not None:
            self._messages.send(items, acks)

    def _take(self, items: list[Any], acks: dict[int, list[int]]) -> None:
        """Handle a message.

        Raises:
            Exception: No outpost of ours sends such a message; this ends the connection.
        """
        for worker, (generation, total) in acks.items():
            process = self._processes.get(worker)
            if process is not None and process.generation == generation:
                process.pipe.acknowledge(total)
        for kind, *fields in items:
            if self.cause:  # an item before this one has ended it
                return
            if kind == Item.CLOCK:
                self._take_clock(*fields)
            elif kind == Item.HELLO:
                if not self._hello.done():
                    self._hello.set_result(dict(fields[0]))
            else:
                self._take_of_process(kind, *fields)

    def _take_of_process(self, kind: int, worker: int, generation: int, *fields: Any) -> None:
        process = self._processes.get(worker)
        if process is None or process.generation != generation:  # of a former one, which has ended
            return
        if kind == Item.DATA:
            process.pipe.arrive(fields[0])
        elif kind == Item.STARTED:
            process.pid = fields[0]
        elif kind == Item.USAGE:
            process.usage = fields[0], fields[1]
        elif kind == Item.KILLED:
            self._answered(worker, generation)
        elif kind == Item.ENDED:
            self._answered(worker, generation)
            del self._processes[worker]
            process.finish(*fields)
        else:
            raise ValueError(f"there is no item {kind!r}")

    def _answered(self, worker: int, generation: int) -> None:
        timer = self._killing.pop((worker, generation), None)
        if timer is not None:
            timer.cancel()

    def _go_on(self) -> None:
        """Let processes that wait for room write, the longest waiting first."""
        for worker, process in list(self._processes.items()):
            if not self.has_room:
                return
            if process.pipe.waiting:
                del self._processes[worker]
                self._processes[worker] = process
                process.pipe.go_on()

    # ---- the clock

    def _take_clock(self, sent: int, there: int, time_of_day: int) -> None:
        received = time.monotonic_ns()
        self._offset.add(sent, there, received)
        wrong = (time_of_day - (time.time_ns() - (received - sent) // 2)) / 1e9
        if abs(wrong) > LARGE_OFFSET and not self._is_off:
            self._is_off = True
            log.warning(
                "the time of day on node %s is %+.2f s off that of the host: tasks start by the "
                "host's clock, but read a wrong time from their own; use NTP",
                *(self.node, wrong),
            )
        if self._measured is not None and not self._measured.done():
            self._measured.set_result(None)
        elif self._is_up:
            self._adjust()

    def _lead(self) -> int:
        """Return a lower bound of the host's time of day less the node's monotonic clock.

        It holds until the next tick. Two monotonic clocks are compared, as nobody can set these.
        """
        now = time.monotonic_ns()
        return time.time_ns() - now + self._offset.lead(now + round(TICK * 1e9))

    def _adjust(self) -> None:
        """Send the lead to the workers if their clocks may be early, or are too late."""
        lead = self._lead()
        if not 0 <= lead - self._sent_lead <= STRAY:
            self._sent_lead = lead
            for process in self._processes.values():
                process.set_lead(lead)
