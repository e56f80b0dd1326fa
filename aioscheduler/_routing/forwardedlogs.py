"""What a worker has logged, handled by the logging of this process.

LOG ─(checked)─► the logger of the record's name: its level, its filters ─► handlers
                                                                               │
the worker may send more ◄── LOGGED ◄──────────────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from .._processes.supervisor import Supervisor
from .._scheduling.unheard import throw
from .._transport import wire
from .._transport.logrecords import Packed, make_record, unpack_record
from .._transport.wire import Kind


def read_levels() -> dict[str, int]:
    """Return the levels below which this process would not handle a record, by names of loggers.

    Of the root logger, and of those that have one of their own.
    """
    enabled = logging.root.manager.disable + 1  # what `logging.disable` lets through
    levels = {logging.root.name: max(logging.root.level, enabled)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = max(logger.level, enabled)
    return levels


class ForwardedLogs:
    """Handles what the processes of one worker's slot have logged.

    Args:
        supervisor: Has the process, and the counts of its slot.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def take(self, loop: asyncio.AbstractEventLoop, records: list[bytes], dropped: int) -> None:
        """Handle records, and let the worker send the next.

        A handler or filter that raises is told of as `logging` does it, on standard error: by the
        loop's exception handler, which logs, it would be called again.

        Args:
            loop: It ends by what is to end it, if a handler raises such a thing.
            records: As `logrecords.pack_record` has made them.
            dropped: How many the worker has had no room for since the last time.

        Raises:
            wire.WireError: No worker of ours sends this; nothing was done.
        """
        if type(records) is not list or type(dropped) is not int or dropped < 0:
            raise wire.WireError(f"no logs of a worker: {records!r:.80}, {dropped!r:.80}")
        unpacked = [unpack_record(record) for record in records]
        if dropped:
            self._supervisor.counts["logs_dropped"] += dropped
        for packed in unpacked:
            try:
                self._handle(packed)
            except BaseException as error:  # noqa: BLE001  of a user's: it is to harm nothing here
                loop.call_soon(throw, error)
        process = self._supervisor.process
        if process is not None and process.pid is not None:  # else these were its last words
            process.pipe.send(wire.encode([Kind.LOGGED]))
            process.pipe.flush()

    def _handle(self, packed: Packed) -> None:
        logger = logging.getLogger(packed.fields["name"])
        if not logger.isEnabledFor(packed.fields["levelno"]):
            return
        try:
            logger.handle(make_record(packed))
        except Exception:  # noqa: BLE001  as in `take`
            name, level, path, line, text = (packed.fields[name] for name in _TOLD)
            plain = logging.LogRecord(name, level, path, line, text, (), None)
            with contextlib.suppress(Exception):  # nobody can be told
                logging.Handler().handleError(plain)


_TOLD = "name", "levelno", "pathname", "lineno", "msg"
