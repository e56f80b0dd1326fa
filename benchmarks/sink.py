"""A worker that runs nothing: it reads frames and answers that all tasks have returned None.

It takes a fraction of a real worker's time, so that one host cannot saturate even a few of them.
Within `with sinks():` managers start sinks instead of workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from aiomultiprocess.types import Unit  # type: ignore[import-untyped]  # ships no type information

from aioscheduler._processes import workerhandle
from aioscheduler._processes.blackbox import BlackBox
from aioscheduler._processes.process import WorkerProcess
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Kind

READ_SIZE = 1 << 20


class SinkProcess(WorkerProcess):
    """A process that runs `serve`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.unit = Unit(target=serve, args=self.unit.args, kwargs={}, namespace=None)
        self.aio_process._args = (self.unit,)  # type: ignore[attr-defined]  # not public


@contextmanager
def sinks() -> Iterator[None]:
    """Make managers within start sinks instead of workers."""
    with mock.patch.object(workerhandle, "WorkerProcess", SinkProcess):
        yield


async def serve(
    reader: Connection, writer: Connection, box: BlackBox, config: WorkerConfig
) -> None:
    """Answer until the host says CLOSE or is gone."""
    decoder = wire.Decoder()
    while data := os.read(reader.fileno(), READ_SIZE):
        answers: list[bytes] = []
        for kind, *fields in decoder.feed(data):
            if kind == Kind.BOOT:
                answers.append(wire.encode([Kind.READY]))
            elif kind == Kind.CLOSE:
                return
            elif kind == Kind.SCHEDULE:
                _answer(answers, *fields)
        rest = memoryview(b"".join(answers))
        while rest:
            rest = rest[os.write(writer.fileno(), rest) :]


def _answer(
    answers: list[bytes],
    first: Any,
    schedulers: Any,
    dues: Any,
    functions: Any,
    records: Any,
    payloads: Any,
) -> None:
    count = len(payloads)
    numbers = first if isinstance(first, list) else list(range(first, first + count))
    for scheduler in {schedulers} if isinstance(schedulers, int) else set(schedulers):
        own = numbers
        if isinstance(schedulers, list):
            own = [n for n, s in zip(numbers, schedulers, strict=True) if s == scheduler]
        answers.append(wire.encode([Kind.ANNOUNCED, scheduler, own]))
        results = [None] * len(own)
        answers.append(wire.encode([Kind.ENDED, scheduler, own, wire.FINISHED, results]))
