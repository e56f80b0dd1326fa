"""Frames to bytes and bytes to frames. Pure, and ignorant of what the payloads mean.

    length (4 bytes, big-endian) │ msgpack array: [kind, field, ...]

Rules of this file:

1. A frame holds integers, floats, text, bytes, booleans, None and arrays of those; everything
   else that users pass has become bytes before it gets here.
2. A payload is one value of a user: itself if it is a number, None or a short text, which msgpack
   carries exactly, else bytes that only `codec` can read.
3. No frame is longer than `MAX_FRAME`. Payloads over `BLOB_LIMIT` are left out of their frame
   and follow as `BLOB` frames of at most `CHUNK` bytes, between which other frames pass.
4. Whatever may be long is cut where its frame is made: text by `text`, bytes by `cut`, columns by
   the bytes in them (`FRAME_BYTES`).
5. What breaks rule 3, or is no msgpack array that begins with a known kind, is a `WireError`:
   the stream cannot be trusted any further. Flipped bits inside a payload are not noticed.

Numbers name tasks: they count up from 0 for each worker slot, in the order of scheduling.
A column is a list with an item per task, or one value that holds for all tasks of the frame; one
record that is a list and holds for all is in a list of its own.
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
arguments or its function cannot be read, or its function does not exist any more. UNASKED is a
durable task that was cancelled though nobody has asked for it; its payload says where."""

ENDINGS = 7
"""How many ways to end there are."""

Payload = bytes | int | float | str | list[Any] | None
"""What travels of a value (rule 2), or IN_BLOB."""

IN_BLOB: list[Any] = []
"""In the place of a payload: it is in the blob of this task's number."""

Record = int | list[Any] | None
"""More of a task: the number of its options, or a list of all that `More` has."""

ALONE = 2
"""Of a task that begins on the host's word, and is announced in a frame of its own."""

FEW = 3
"""Of a task that begins on the host's word, and is in doubt from then on: few are announced before
those of their scheduler have begun that were."""

FRAME_BYTES = 64 * 1024
"""Bytes of payloads after which a frame is not held back for more tasks."""


class Kind(IntEnum):
    """What a frame says; in brackets its fields."""

    # host to worker
    DEFINE = 1  # [bytes, last]: a part of the next definition
    # [bytes, last]: a part of the initializer's call and of what propagates; with the last (b"":
    # there is neither) begin.
    BOOT = 2
    # [first number, or numbers; columns: schedulers, due times, functions, records, payloads].
    # A number that was named before and that the process has not any more is given to it again.
    SCHEDULE = 3
    CANCEL = 4  # [scheduler, numbers]
    WITHDRAW = 15  # [scheduler, numbers]: drop what was not announced; leave the others alone
    # [indices of PROPOSED of this process, from 0; in any order, each once]: they are entered, and
    # their tasks may begin
    CONFIRM = 16
    DRAIN = 19  # []: do what SIGTERM does: start nothing more, and end when nothing runs
    CLOCK = 23  # [ns]: what the clock of this process is ahead of its machine's monotonic one
    LOGGED = 21  # []: the records of the last LOG have been handled; there may be another
    CLOSE = 5  # [seconds]: drop what waits, let what runs finish that long, then end
    # worker to host
    READY = 6  # []
    FATAL = 7  # [text]: cannot begin, or go on, for this reason, and ends
    ANNOUNCED = 8  # [scheduler, numbers]: may begin to run as soon as this is written
    PROPOSED = 17  # [scheduler, numbers]: as ANNOUNCED, but they begin on CONFIRM alone
    UNBEGUN = 12  # [scheduler, numbers]: were announced, and did not begin; another may have them
    INSIDE = 11  # [bytes, last]: a part of a request that a task makes of its manager
    # [scheduler, numbers, waits in ns, lines on the failures]: have failed, and start once more. A
    # queue keeps them at its head; timed ones are forgotten, and to be given again.
    RETRY = 18
    ENDED = 9  # [scheduler, numbers, ending (of all), payloads]
    DRAINING = 13  # []: was told to go; starts nothing more, and ends when nothing runs
    DRAINED = 22  # []: has gone as it was told: what ran has ended, or has had its time
    LOG = 20  # [records, as of `logrecords`; how many were dropped since the last]
    # [loop's lag in s, a `lateness.Report`, last FORGET read, resident bytes or 0]: behind READY,
    # and once an `alarm.TICK`
    TICK = 14
    # both ways
    BLOB = 10  # [number, bytes, left]: a part of the payload that was left out for `number`, and
    # how many bytes are to follow


Frame = list[Any]

pack: Callable[[Any], bytes] = msgpack.packb
unpack: Callable[[bytes], Any] = msgpack.unpackb

_LENGTH = struct.Struct(">I")
_KINDS = frozenset(Kind)


class WireError(Exception):
    """The bytes are not frames of this protocol; the stream cannot be read any further."""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame, its length in front."""
    body = pack(frame)
    if len(body) > MAX_FRAME:
        raise WireError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def cut(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the parts of what may be long, at least one, and whether each is the last."""
    for start in range(0, max(len(body), 1), CHUNK):
        yield body[start : start + CHUNK], start + CHUNK >= len(body)


class Parts:
    """Puts together what was cut. In place: to copy it with each part would take the square."""

    def __init__(self) -> None:
        self._body = bytearray()

    def add(self, part: bytes, last: bool) -> bytes | None:
        """Take the next part; return the whole with its last one, and begin anew."""
        self._body += part
        if not last:
            return None
        body, self._body = bytes(self._body), bytearray()
        return body


def text(message: str) -> str:
    """Return the end of a text as far as a frame takes it, with what UTF-8 has not in escapes."""
    return message[-CHUNK:].encode("utf-8", "backslashreplace").decode()


class More(NamedTuple):
    """What the record of a task says.

    Attributes:
        options: The number of its options, if it has any.
        alias: The number that the worker gave it in which it was scheduled, if it was.
        attempt: How many times it has been started when it starts next.
        confirmed: Whether it begins on the host's word alone (`Kind.CONFIRM`): 0, 1, ALONE or FEW.
        failed: How many attempts have failed; one that its worker did not survive has not.
        given: The due time that it was given, where that of its frame is of a further attempt.
        captured: The payload of what was captured of the context in which it was scheduled.
    """

    options: int | None = None
    alias: int | None = None
    attempt: int = 1
    confirmed: int = 0
    failed: int = 0
    given: int | None = None
    captured: bytes | None = None

    def after_failure(self) -> More:
        """Return what holds of the attempt after one that failed: by which no process has died."""
        confirmed = 1 if self.confirmed == ALONE else self.confirmed
        return self._replace(attempt=self.attempt + 1, failed=self.failed + 1, confirmed=confirmed)


def make_record(more: More) -> Record:
    """Return the record of a task; a list only if there is more than options."""
    return list(more) if more[1:] != _NO_MORE[1:] else more.options


def record_of(options: int | None, captured: bytes | None) -> Record:
    """Return the record of a task that is new, in a tenth of the time of `make_record`."""
    return options if captured is None else [options, *_NEW, captured]


def options_of(record: Record) -> int | None:
    """Return the number of a task's options, if it has any."""
    return record[0] if isinstance(record, list) else record


def confirmed_of(record: Record) -> int:
    """Return whether a task begins on the host's word alone: 0, 1, ALONE or FEW."""
    return record[_CONFIRMED] if isinstance(record, list) else 0


def captured_of(record: Record) -> bytes | None:
    """Return the payload of what was captured for a task, if anything was."""
    return record[_CAPTURED] if isinstance(record, list) else None


def column(field: Any, count: int) -> Iterable[Any]:
    """Return a column's item for each task; the one item of a list holds for all of them, too."""
    if not isinstance(field, list):
        return repeat(field, count)
    return repeat(field[0], count) if len(field) == 1 else field


def read_record(record: Record) -> More:
    """Return what a record says."""
    return More._make(record) if isinstance(record, list) else More(record)


_NO_MORE = More()
_NEW = _NO_MORE[1:-1]  # what is between the options and what was captured
_CONFIRMED, _CAPTURED = map(More._fields.index, ("confirmed", "captured"))

run_of: Callable[[list[Any]], Any] = itemgetter(
    *map(More._fields.index, ("options", "alias", "attempt", "given", "captured"))
)
"""Return, of a record that is a list, what a run needs: these fields."""


class Decoder:
    """Collects bytes, however they were split, and gives back whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes.

        Raises:
            WireError: A length, a body or a kind that no peer of ours writes.
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
