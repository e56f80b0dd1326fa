"""Log records of workers, handled by the logging of this process.

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
    """Return the levels below which this process would not handle a record, by logger name.

    Only the root logger and loggers with a level of their own are included.
    """
    enabled = logging.root.manager.disable + 1  # what `logging.disable` lets through
    levels = {logging.root.name: max(logging.root.level, enabled)}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = max(logger.level, enabled)
    return levels


class ForwardedLogs:
    """Handles the log records of the processes in one worker's slot.

    Args:
        supervisor: Has the process and the counts of the slot.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def take(self, loop: asyncio.AbstractEventLoop, records: list[bytes], dropped: int) -> None:
        """Handle records, and let the worker send more.

        If a handler or filter raises, that is reported on standard error, as `logging` does: the
        loop's exception handler logs, and would call it again.

        Args:
            loop: The loop, out of which a handler's `KeyboardInterrupt` or the like is raised.
            records: Made by `logrecords.pack_record`.
            dropped: How many records the worker has had no room for since the last time.

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
            except BaseException as error:  # noqa: BLE001  user code must not do harm here
                loop.call_soon(throw, error)
        process = self._supervisor.process
        if process is not None and process.pid is not None:  # else these were its last frames
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
            with contextlib.suppress(Exception):  # nowhere left to report it
                logging.Handler().handleError(plain)


_TOLD = "name", "levelno", "pathname", "lineno", "msg"
