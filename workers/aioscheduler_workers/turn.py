"""The outcomes of one turn of the loop, written together.

outcomes, one by one ─► a frame for each scheduler and ending ─┐
attempts that failed ─► a frame for each scheduler ────────────┼─► the pipe, at the turn's end
announcements, requests: frames of their own ──────────────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aioscheduler._transport import wire
from aioscheduler._transport.pipe import Pipe
from aioscheduler._transport.wire import Kind, Payload

MAX_OUTCOMES = 256  # outcomes in one frame


class Turn:
    """Collects outcomes, and writes them at the end of the loop's turn.

    Args:
        pipe: The pipe to the host.
        schedulers: The number of the worker's schedulers.
        fail: Ends the worker, because its outcomes would be lost.
    """

    def __init__(self, pipe: Pipe, schedulers: int, fail: Callable[[BaseException], None]) -> None:
        self._pipe = pipe
        self._fail = fail
        self._outcomes: list[tuple[list[int], list[Payload]]] = [  # by scheduler and ending
            ([], []) for _ in range(schedulers * wire.ENDINGS)
        ]
        self._retries: dict[int, tuple[list[int], list[int], list[str]]] = {}
        self._bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Handle | None = None  # of this turn

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write at the ends of this loop's turns from now on."""
        self._loop = loop

    def stop(self) -> None:
        """Write no more."""
        self._loop = None
        if self._end is not None:
            self._end.cancel()

    def report(self, scheduler: int, number: int, ending: int, payload: Payload) -> None:
        """Report to the host how a task has ended.

        Args:
            scheduler: Its scheduler.
            number: Its number.
            ending: Its ending, one of those in `wire`.
            payload: The payload of its result or failure.
        """
        if type(payload) is bytes:
            if len(payload) > wire.BLOB_LIMIT:
                outcome = [Kind.ENDED, scheduler, [number], ending, [wire.IN_BLOB]]
                self._pipe.send_blob(number, payload, then=wire.encode(outcome))
                self.write_soon()
                return
            self._bytes += len(payload)
            if self._bytes > wire.FRAME_BYTES:
                self.pack()
        numbers, payloads = self._outcomes[scheduler * wire.ENDINGS + ending]
        numbers.append(number)
        payloads.append(payload)
        if self._end is None:
            self.write_soon()

    def retry(self, scheduler: int, number: int, wait: int, line: str) -> None:
        """Report to the host that an attempt has failed, and that the task will start again.

        Args:
            scheduler: Its scheduler.
            number: Its number.
            wait: Nanoseconds until then.
            line: The task's name and its failure, in one line.
        """
        numbers, waits, lines = self._retries.setdefault(scheduler, ([], [], []))
        numbers.append(number)
        waits.append(wait)
        lines.append(wire.text(line))
        self._bytes += len(lines[-1])
        if len(numbers) >= MAX_OUTCOMES or self._bytes > wire.FRAME_BYTES:
            self.pack()
        self.write_soon()

    def write_soon(self) -> None:
        """Write everything collected or sent when this turn of the loop ends."""
        if self._end is None and self._loop is not None:
            self._end = self._loop.call_soon(self.write)

    def write(self) -> None:
        """Write everything collected or sent now."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        try:
            self.pack()
            self._pipe.flush()
        except Exception as error:  # noqa: BLE001  outcomes would be lost
            self._fail(error)

    def pack(self) -> None:
        """Make frames of everything collected."""
        self._bytes = 0
        for index, (numbers, payloads) in enumerate(self._outcomes):
            if numbers:
                scheduler, ending = divmod(index, wire.ENDINGS)
                for start in range(0, len(numbers), MAX_OUTCOMES):
                    part = slice(start, start + MAX_OUTCOMES)
                    finished = [Kind.ENDED, scheduler, numbers[part], ending, payloads[part]]
                    self._pipe.send(wire.encode(finished))
                numbers.clear()
                payloads.clear()
        if self._retries:
            retries, self._retries = self._retries, {}
            for scheduler, columns in retries.items():
                self._pipe.send(wire.encode([Kind.RETRY, scheduler, *columns]))
