"""A worker's core without a process: frames in, frames out, and frames under way.

Its clock is set by hand, and its pipe is a list that holds frames back when the test says so:
nothing begins that was not announced.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from typing import Any

from turning import turns

from aioscheduler._processes.process import workers_module
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._transport import wire
from aioscheduler._transport.wire import IN_BLOB, Kind
from aioscheduler.options import Options
from aioscheduler.retry import Retry

NOW = 100 * SECOND
LATER = NOW + SECOND


class HeldPipe:
    """The host's end, as a worker sees it.

    Attributes:
        frames: The frames written, without ticks; a blob is one frame.
        held: Whether sent frames are held back.
        ticks: The ticks.
        blobs: The payloads that were sent as blobs.
    """

    def __init__(self, receive: Callable[[Any], None], closed: Callable[..., None]) -> None:
        self.receive, self.closed = receive, closed
        self.frames: list[list[Any]] = []
        self.ticks: list[list[Any]] = []
        self.blobs: list[bytes] = []
        self.held = False
        self.is_open = False
        self.fails: Exception | None = None
        self._waiting: list[tuple[bytes, Callable[[], None] | None]] = []

    def open(self, loop: Any, reader: int, writer: int) -> None:
        self.is_open = True

    def send(self, frame: bytes, written: Callable[[], None] | None = None) -> None:
        if self.fails is not None:
            raise self.fails
        self._waiting.append((frame, written))

    def send_blob(self, number: int, payload: bytes, then: bytes) -> None:
        self.blobs.append(payload)
        self._waiting += [(wire.encode([Kind.BLOB, number, len(payload), 0]), None), (then, None)]

    def flush(self) -> None:
        while self._waiting and not self.held:
            data, written = self._waiting.pop(0)
            (frame,) = wire.Decoder().feed(data)
            (self.ticks if frame[0] == Kind.TICK else self.frames).append(frame)
            if written is not None:
                written()

    @property
    def waiting(self) -> int:
        return sum(len(frame) for frame, _ in self._waiting)

    async def drain(self) -> None:
        self.flush()

    def check(self) -> None:
        """Do nothing: no other code closes it."""

    def close(self) -> None:
        self.is_open = False


Make = Callable[..., "Rig"]


class Rig:
    """A worker, and the host's side of it."""

    def __init__(
        self,
        order: Order = Order.TIMED,
        layout: tuple[int, ...] = (2,),
        failures: tuple[BaseException, ...] = (),
        generation: int = 0,
        confirmed: bool = False,
        max_running: int | None = None,
        measured: bool = False,
        has_store: bool = False,
    ) -> None:
        self.shipper = HostShipper(HostCatalog())
        self.words = memoryview(array("Q", bytes(16 * layout[0])))
        config = WorkerConfig(
            manager="ab",
            order=order,
            layout=layout,
            prefer_utc=True,
            host=0,
            generation=generation,
            confirmed=confirmed,
            max_running=max_running,
            measured=measured,
            has_store=has_store,
        )
        self.now = NOW
        self.worker = workers_module("worker").Worker(
            config,
            list(failures),
            self.words,
            lambda: self.now,
            self._make_pipe,
        )
        self._told = 0  # of the lines of definitions

    def _make_pipe(self, receive: Any, closed: Any) -> HeldPipe:
        self.pipe = HeldPipe(receive, closed)
        return self.pipe

    async def start(self, boot: bytes | None = b"") -> None:
        loop = asyncio.get_running_loop()
        self.serving = asyncio.create_task(self.worker.serve(loop, 0, 0))
        await asyncio.sleep(0)
        if boot is not None:
            self.tell_definitions()
            self.send(Kind.BOOT, boot, True)
            await turns()

    @property
    def begun(self) -> list[int]:
        """Return, by scheduler, the number of the last task begun without CONFIRM."""
        return self.words[: len(self.words) // 2].tolist()

    @property
    def begun_on_word(self) -> list[int]:
        """Return, by scheduler, the number of the last timed task begun on CONFIRM."""
        return self.words[len(self.words) // 2 :].tolist()

    def send(self, *frame: Any) -> None:
        """Send the worker a frame, as it arrives from a pipe."""
        (arrived,) = wire.Decoder().feed(wire.encode(list(frame)))
        self.pipe.receive(arrived)

    def tell_definitions(self) -> None:
        for number in sorted(self.shipper.catalog.log.lines):
            if number >= self._told:
                self.send(Kind.DEFINE, self.shipper.catalog.log.lines[number], True)
                self._told = number + 1

    def schedule(
        self,
        number: int,
        coro: Any,
        due: int = 0,
        scheduler: int = 0,
        record: Any = None,
        retry: Retry | None = None,
    ) -> None:
        if retry is not None:
            options = self.shipper.take_options(Options(retry=retry))
            record = wire.make_record(wire.read_record(record)._replace(options=options))
        function, payload, _ = self.shipper.take(coro)
        self.tell_definitions()
        blob = isinstance(payload, bytes) and len(payload) > wire.BLOB_LIMIT
        row = [IN_BLOB if blob else payload]
        self.send(
            Kind.SCHEDULE,
            number,
            scheduler,
            due,
            function,
            None if record is None else [record],
            row,
        )
        if blob:
            self.pipe.receive([Kind.BLOB, number, payload])

    def call(self, first: int, function: Any, payloads: list[Any], scheduler: int = 0) -> None:
        """Schedule calls of a function, with a payload each."""
        number = self.shipper.take_function(function)
        self.tell_definitions()
        self.send(Kind.SCHEDULE, first, scheduler, 0, number, None, payloads)

    async def pass_(self, seconds: float) -> None:
        """Let time pass, and the alarm notice it."""
        self.now += int(seconds * SECOND)
        self.worker._lifecycle._alarm._ring()
        await turns()

    def take(self) -> list[list[Any]]:
        """Return the frames written since the last call, with kinds by name."""
        frames = [[Kind(frame[0]), *frame[1:]] for frame in self.pipe.frames]
        self.pipe.frames.clear()
        return frames

    def failure(self, payload: bytes) -> BaseException:
        return self.shipper.catalog.decode_failure(payload)


async def give(value: Any) -> Any:
    return value


async def fail(word: str) -> None:
    raise LookupError(word)


def after(seconds: float, attempts: int = 2) -> Retry:
    """Make failed tasks wait this long before each further attempt."""
    return Retry(attempts=attempts, wait_initial=seconds, wait_exp_base=1, wait_jitter=0)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()
