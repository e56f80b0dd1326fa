"""Log records to bytes in the worker, and bytes to log records in the host.

    logging.LogRecord ─► pack: texts, cut ─► bytes ─► unpack: checked ─► make ─► LogRecord

All formatting is done in the worker: the host receives the text of the message and of the
traceback, and those attributes added by `extra=` that are plain values.
"""

from __future__ import annotations

import logging
import math
import time
import traceback
from typing import Any, NamedTuple

from ..errors import RemoteTraceback
from . import wire

LONGEST = 8 * 1024
"""Characters of a text that travel: half of them from its beginning, half from its end."""

LONGEST_NAME = 1024  # characters of a name, and of a text among the extras
MOST_EXTRAS = 32
"""With these limits no record is longer than half the longest frame, whatever it contains."""

_CUT = " […] "
_PLAIN = (type(None), bool, int, float, str)
_LARGEST = 1 << 63  # integers in msgpack are smaller

_TEXT, _OPTIONAL = frozenset((str,)), frozenset((str, type(None)))
_NUMBER = frozenset((int,))
_FIELDS = {
    "name": _TEXT,
    "levelno": _NUMBER,
    "levelname": _TEXT,
    "msg": _TEXT,
    "created": frozenset((float,)),
    "pathname": _TEXT,
    "lineno": _NUMBER,
    "funcName": _OPTIONAL,
    "process": _NUMBER,
    "processName": _TEXT,
    "thread": frozenset((int, type(None))),
    "threadName": _OPTIONAL,
    "taskName": _OPTIONAL,
    "exc_text": _OPTIONAL,
    "stack_info": _OPTIONAL,
}
"""The attributes that travel, in this order, each with its types; then the extras, key by key."""


class Packed(NamedTuple):
    """The contents of a received record.

    Attributes:
        fields: The attributes of `_FIELDS`.
        extras: The attributes added by `extra=`, filters and factories.
    """

    fields: dict[str, Any]
    extras: dict[str, Any]


_DERIVED = ("args", "exc_info", "filename", "module", "msecs", "relativeCreated")
_STANDARD = frozenset((*_FIELDS, *_DERIVED, "message", "asctime"))


def pack_record(record: logging.LogRecord, process: int, name: str) -> bytes:
    """Return the bytes of a record, which is left unchanged.

    A message or traceback that cannot be formatted is replaced with a text that says so.

    Args:
        record: A record of any logger; its message is formatted here.
        process: The process's id, for records that have none.
        name: The process's name, for records that have none.
    """
    fields = [
        _name(record.name),
        _number(record.levelno),
        _name(record.levelname),
        _text(_message(record)),
        _seconds(record.created),
        _name(record.pathname),
        _number(record.lineno),
        _optional(record.funcName),
        _number(record.process or process),
        _name(record.processName or name),
        record.thread if record.thread is None else _number(record.thread),
        _optional(record.threadName),
        _optional(getattr(record, "taskName", None)),
        _traceback(record),
        None if record.stack_info is None else _text(record.stack_info),
    ]
    return wire.pack([*fields, *_extras(record)])


def unpack_record(packed: bytes) -> Packed:
    """Return the contents of a record, for `make_record`.

    Raises:
        wire.WireError: The bytes were not made by `pack_record`.
    """
    try:
        values = wire.unpack(packed)
        fields = dict(zip(_FIELDS, values, strict=False))
        types = all(type(fields[name]) in _FIELDS[name] for name in _FIELDS)
        rest = values[len(_FIELDS) :]
        extras = dict(zip(rest[::2], rest[1::2], strict=True))
    except Exception as error:
        raise wire.WireError(f"no record of a log: {packed!r:.80}") from error
    if (
        not types
        or not math.isfinite(fields["created"])
        or not all(type(key) is str and key not in _STANDARD for key in extras)
        or not all(type(value) in _PLAIN for value in extras.values())
    ):
        raise wire.WireError(f"no record of a log: {values!r:.80}")
    return Packed(fields, extras)


def make_record(packed: Packed) -> logging.LogRecord:
    """Return a record with the time, process, thread and task of the original.

    It is made by the record factory of this process, which may add attributes that its formatters
    expect, and may raise. Handlers that read `exc_info` find an exception with the traceback text.
    """
    fields, extras = packed
    factory = logging.getLogRecordFactory()
    names = "name", "levelno", "pathname", "lineno", "msg"
    # The factory also derives the names of file and module.
    record = factory(*(fields[name] for name in names), (), None)
    start = record.created - record.relativeCreated / 1000
    if fields["taskName"] is None and not hasattr(record, "taskName"):  # before Python 3.12
        fields = {name: fields[name] for name in fields if name != "taskName"}
    record.__dict__ |= fields | extras
    if record.exc_text:
        record.exc_info = RemoteTraceback, RemoteTraceback(record.exc_text), None
    record.msecs = float(int(record.created % 1 * 1000))
    record.relativeCreated = (record.created - start) * 1000
    return record


def _message(record: logging.LogRecord) -> str:
    try:
        return _exact(record.getMessage())
    except BaseException as error:  # noqa: BLE001  a user's class may raise anything here
        what = f"could not be formatted: {_name_of(error)}"
    try:
        return f"{record.msg!r} % {record.args!r} {what}"
    except BaseException:  # noqa: BLE001  as above
        return f"a message of {record.pathname}, line {record.lineno}, {what}"


def _traceback(record: logging.LogRecord) -> str | None:
    """Return the traceback as text, as `logging.Formatter` does."""
    if not record.exc_info:
        return None if not record.exc_text else _text(record.exc_text)
    try:
        return _text("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    except BaseException as error:  # noqa: BLE001  a user's exception may raise anything here
        return _text(f"a traceback could not be formatted: {_name_of(error)}")


def _name_of(error: BaseException) -> str:
    return type(error).__name__[:LONGEST_NAME]


def _extras(record: logging.LogRecord) -> list[Any]:
    """Return the plain attributes that `extra=`, filters and factories have added."""
    found: list[Any] = []
    for key, value in list(vars(record).items()):
        if type(key) is not str or key in _STANDARD or not isinstance(value, _PLAIN):
            continue
        plain = _plain(value)
        if type(plain) is int and not -_LARGEST <= plain < _LARGEST:
            continue
        found += _name(key), plain
        if len(found) == 2 * MOST_EXTRAS:
            break
    return found


def _plain(value: Any) -> bool | int | float | str | None:
    """Return the value as a built-in type, bypassing the methods of its class."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else _text(value, LONGEST_NAME)


def _number(value: Any) -> int:
    return max(-_LARGEST, min(int(value), _LARGEST - 1))


def _seconds(value: Any) -> float:
    """Return the seconds since the epoch; the present time if the value is not finite."""
    seconds = float(value)
    return seconds if math.isfinite(seconds) else time.time()


def _optional(value: Any) -> str | None:
    return None if value is None else _name(value)


def _name(value: Any) -> str:
    return _text(value, LONGEST_NAME)


def _text(value: Any, longest: int = LONGEST) -> str:
    value = _exact(value)
    if len(value) > longest:
        half = longest // 2
        value = f"{value[:half]}{_CUT}{value[-half:]}"
    return wire.text(value)


def _exact(value: Any) -> str:
    """Return an exact `str`: `str()` itself may return an instance of a subclass."""
    return str.__str__(str(value))
