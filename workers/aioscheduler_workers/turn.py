"""What one turn of the loop brings forth, written together.

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

MAX_OUTCOMES = 256  # tasks whose outcomes are sent together


class Turn:
    """Collects outcomes, and has them written at the end of the loop's turn.

    Args:
        pipe: To the host.
        schedulers: How many the worker has.
        fail: Ends the worker, because what it was to tell would never be known.
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
        """Take the turns of this loop from now on."""
        self._loop = loop

    def stop(self) -> None:
        """Write nothing any more."""
        self._loop = None
        if self._end is not None:
            self._end.cancel()

    def report(self, scheduler: int, number: int, ending: int, payload: Payload) -> None:
        """Tell the host how a task has ended.

        Args:
            scheduler: Its scheduler.
            number: Its number.
            ending: One of `wire`.
            payload: What it returned or raised.
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
        """Tell the host that an attempt has failed, and that the task is to start once more.

        Args:
            scheduler: Its scheduler.
            number: Its number.
            wait: Nanoseconds until then.
            line: Who has failed, and with what.
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
        """Write what was collected or sent when this turn of the loop ends."""
        if self._end is None and self._loop is not None:
            self._end = self._loop.call_soon(self.write)

    def write(self) -> None:
        """Write it now."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        try:
            self.pack()
            self._pipe.flush()
        except Exception as error:  # noqa: BLE001  what it was to tell would never be known
            self._fail(error)

    def pack(self) -> None:
        """Make frames of what was collected."""
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
