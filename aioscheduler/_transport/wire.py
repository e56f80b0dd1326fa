"""Frames to bytes and bytes to frames. Pure, and ignorant of the meaning of payloads.

    length (4 bytes, big-endian) │ msgpack array: [kind, field, ...]

Rules of this file:

1. A frame holds integers, floats, text, bytes, booleans, None and arrays of those; all other
   values of users have become bytes before they get here.
2. A payload is one value of a user: itself if it is a number, None or a short text, which msgpack
   carries exactly, otherwise bytes that only `codec` can read.
3. No frame is longer than `MAX_FRAME`. Payloads over `BLOB_LIMIT` are left out of their frame
   and follow as `BLOB` frames of at most `CHUNK` bytes, between which other frames pass.
4. Long data is cut where its frame is made: text by `text`, bytes by `cut`, columns by the bytes
   in them (`FRAME_BYTES`).
5. A frame that breaks rule 3, or is no msgpack array that begins with a known kind, is a
   `WireError`: the stream cannot be trusted any further. Flipped bits in payloads go unnoticed.

Numbers identify tasks: they count up from 0 for each worker slot, in the order of scheduling.
A column is a list with an item per task, or one value for all tasks of the frame; a single record
that is a list is wrapped in another list.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]  # ships no type information

MAX_FRAME = 1 << 20
BLOB_LIMIT = 32 * 1024
CHUNK = 64 * 1024

FINISHED, FAILED, CANCELLED, TOO_LATE, UNREADABLE, UNKNOWN, UNASKED = range(7)
"""How a task ended. The first three are the states of these names; a withdrawn task is CANCELLED,
too. The next three are failures before any of the user's code has run: the task was too late, its
arguments or its function cannot be read, or its function no longer exists. UNASKED is a durable
task that was cancelled without a request; its payload says where."""

ENDINGS = 7
"""The number of endings."""

Payload = bytes | int | float | str | list[Any] | None
"""A value as it travels (rule 2), or IN_BLOB."""

IN_BLOB: list[Any] = []
"""Stands for a payload that is in the blob of this task's number."""

Record = int | list[Any] | None
"""More about a task: the number of its options, or a list of the fields of `More`."""

ALONE = 2
"""`More.confirmed` of a proposed task that is announced in a frame of its own."""

FEW = 3
"""`More.confirmed` of a proposed task that counts as begun from its CONFIRM on: few of a scheduler
are announced until those announced before have begun."""

FRAME_BYTES = 64 * 1024
"""Bytes of payloads from which on a frame is not held back for more tasks."""


class Kind(IntEnum):
    """The kind of a frame; in brackets its fields."""

    # host to worker
    DEFINE = 1  # [bytes, last]: a part of the next definition
    # [bytes, last]: a part of the initializer's call and of what propagates; after the last part
    # (b"" if there is neither), begin.
    BOOT = 2
    # [first number, or numbers; columns: schedulers, due times, functions, records, payloads].
    # A number that was sent before, and that the process no longer has, is scheduled again.
    SCHEDULE = 3
    CANCEL = 4  # [scheduler, numbers]
    WITHDRAW = 15  # [scheduler, numbers]: drop those not announced; leave the others alone
    # [indices of PROPOSED frames of this process, from 0; in any order, each once]: their tasks are
    # entered and may begin
    CONFIRM = 16
    DRAIN = 19  # []: as SIGTERM: start no more tasks, and end when none runs
    CLOCK = 23  # [ns]: the lead of this process's clock over its machine's monotonic clock
    LOGGED = 21  # []: the records of the last LOG have been handled; another may follow
    CLOSE = 5  # [seconds]: drop waiting tasks, let running ones finish that long, then end
    # worker to host
    READY = 6  # []
    FATAL = 7  # [text]: cannot start, or go on, for this reason, and ends
    ANNOUNCED = 8  # [scheduler, numbers]: may begin as soon as this is written
    PROPOSED = 17  # [scheduler, numbers]: as ANNOUNCED, but they begin on CONFIRM alone
    UNBEGUN = 12  # [scheduler, numbers]: were announced, and did not begin: another process may
    INSIDE = 11  # [bytes, last]: a part of a request of a task to its manager
    # [scheduler, numbers, waits in ns, lines on the failures]: have failed, and start again. A
    # queue keeps them at its head; timed ones are forgotten, and must be sent again.
    RETRY = 18
    ENDED = 9  # [scheduler, numbers, ending (of all), payloads]
    DRAINING = 13  # []: drains: starts no more tasks, and ends when none runs
    DRAINED = 22  # []: has drained: running tasks have ended, or their time is over
    LOG = 20  # [records, as in `logrecords`; the number dropped since the last LOG]
    # [loop's lag in s, a `lateness.Report`, last FORGET read, resident bytes or 0]: after READY,
    # and once an `alarm.TICK`
    TICK = 14
    # both ways
    BLOB = 10  # [number, bytes, left]: a part of the payload that was left out for `number`, and
    # how many bytes will follow


Frame = list[Any]

pack: Callable[[Any], bytes] = msgpack.packb
unpack: Callable[[bytes], Any] = msgpack.unpackb

_LENGTH = struct.Struct(">I")
_KINDS = frozenset(Kind)


class WireError(Exception):
    """The bytes are not frames of this protocol; the stream cannot be read any further."""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame, with its length first."""
    body = pack(frame)
    if len(body) > MAX_FRAME:
        raise WireError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def cut(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of long bytes, at least one, and whether each is the last."""
    for start in range(0, max(len(body), 1), CHUNK):
        yield body[start : start + CHUNK], start + CHUNK >= len(body)


class Parts:
    """Joins the parts of `cut`, in place: copying with each part would take quadratic time."""

    def __init__(self) -> None:
        self._body = bytearray()

    def add(self, part: bytes, last: bool) -> bytes | None:
        """Add the next part; after the last one return the whole, and start over."""
        self._body += part
        if not last:
            return None
        body, self._body = bytes(self._body), bytearray()
        return body


def text(message: str) -> str:
    """Return as much of a text's end as fits a frame, with characters UTF-8 lacks escaped."""
    return message[-CHUNK:].encode("utf-8", "backslashreplace").decode()


class More(NamedTuple):
    """The fields of a task's record.

    Attributes:
        options: The number of its options; None if it has none.
        alias: The number given by the worker in which it was scheduled; None if the host did.
        attempt: The number of its next attempt, from 1.
        confirmed: Whether it begins on CONFIRM alone: 0 (no), 1, ALONE or FEW.
        failed: How many attempts have failed; one that ended with its worker is not counted.
        given: The due time that the user gave it, if that in its frame is of a further attempt.
        captured: The payload of the values captured when it was scheduled.
    """

    options: int | None = None
    alias: int | None = None
    attempt: int = 1
    confirmed: int = 0
    failed: int = 0
    given: int | None = None
    captured: bytes | None = None

    def after_failure(self) -> More:
        """Return the fields for the attempt after one that failed without ending its process."""
        confirmed = 1 if self.confirmed == ALONE else self.confirmed
        return self._replace(attempt=self.attempt + 1, failed=self.failed + 1, confirmed=confirmed)


def make_record(more: More) -> Record:
    """Return the record of a task; a list only if it has more than options."""
    return list(more) if more[1:] != _NO_MORE[1:] else more.options


def record_of(options: int | None, captured: bytes | None) -> Record:
    """Return the record of a new task, in a tenth of the time of `make_record`."""
    return options if captured is None else [options, *_NEW, captured]


def options_of(record: Record) -> int | None:
    """Return the number of a task's options; None if it has none."""
    return record[0] if isinstance(record, list) else record


def confirmed_of(record: Record) -> int:
    """Return whether a task begins on CONFIRM alone: 0 (no), 1, ALONE or FEW."""
    return record[_CONFIRMED] if isinstance(record, list) else 0


def captured_of(record: Record) -> bytes | None:
    """Return the payload of a task's captured values; None if there are none."""
    return record[_CAPTURED] if isinstance(record, list) else None


def column(field: Any, count: int) -> Iterable[Any]:
    """Return a column's item for each task; the only item of a list is for all of them, too."""
    if not isinstance(field, list):
        return repeat(field, count)
    return repeat(field[0], count) if len(field) == 1 else field


def read_record(record: Record) -> More:
    """Return the fields of a record."""
    return More._make(record) if isinstance(record, list) else More(record)


_NO_MORE = More()
_NEW = _NO_MORE[1:-1]  # the fields between options and captured
_CONFIRMED, _CAPTURED = map(More._fields.index, ("confirmed", "captured"))

run_of: Callable[[list[Any]], Any] = itemgetter(
    *map(More._fields.index, ("options", "alias", "attempt", "given", "captured"))
)
"""Return the fields that a run needs, of a record that is a list."""


class Decoder:
    """Collects bytes, however they were split, and returns whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes.

        Raises:
            WireError: A length, a body or a kind is invalid.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 4:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 0 < length <= MAX_FRAME:
                    raise WireError(f"a frame cannot have {length} bytes")
                end = start + 4 + length
                if len(buffer) < end:
                    return
                body = bytes(memoryview(buffer)[start + 4 : end])
                start = end
                yield _decode_body(body)
        finally:
            del buffer[:start]


def _decode_body(body: bytes) -> Frame:
    try:
        frame = msgpack.unpackb(body)
    except Exception as error:
        raise WireError(f"not msgpack: {error!r}") from error
    if type(frame) is not list or not frame or type(frame[0]) is not int or frame[0] not in _KINDS:
        raise WireError(f"not a frame: {frame!r:.80}")
    return frame
