"""The forms of a payload, distinguished by their first byte.

    payload = a plain value itself                               (numbers, None, short texts)
            | msgpack of one scalar, or of a list of scalars    (exact for these types, and fast)
            | pickle                                             (begins with 0x80, as msgpack of
                                                                  a scalar or list never does)
            | 0xC1, length, msgpack of lines, one of these       (an outcome that names these
                                                                  lines of the definitions)
    failure = msgpack of [traceback, payload of the exception]  (the text can be read without
                                                                  unpickling the exception)

The contents of a pickle are not known here: see `codec`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no type information

from .._transport import wire

SCALARS = frozenset((int, float, bool, str, bytes, type(None)))
PICKLED = 0x80  # the first byte of a pickle
NAMING = 0xC1  # the first byte of one with names in front; no pickle or msgpack begins with it
_NAMES_FROM = 5  # after that byte and the length of the names
SHORT_TEXT = 256  # characters of the longest text that is its own payload


class Scalars:
    """Packs one scalar, or a list of them; reusing a packer halves the time.

    The packer keeps its buffer, too: it is replaced after a large value.

    Attributes:
        pack_plain: Packs values that are not large.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self.pack_plain: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack

    def pack(self, value: Any) -> bytes:
        packed = self.pack_plain(value)
        if len(packed) > wire.BLOB_LIMIT:
            self._renew()
        return packed


def with_names(payload: bytes, lines: Sequence[int]) -> bytes:
    """Return a pickle preceded by the lines of the definitions that it names, if any."""
    if not lines:
        return payload
    names = wire.pack(lines)
    return b"%c%b%b%b" % (NAMING, len(names).to_bytes(4), names, payload)


def names_in(payload: wire.Payload) -> Sequence[int]:
    """Return the lines in front of a payload.

    Raises:
        Exception: `with_names` has not made it.
    """
    if not isinstance(payload, bytes) or payload[0] != NAMING:
        return ()
    names = wire.unpack(payload[_NAMES_FROM : _NAMES_FROM + int.from_bytes(payload[1:_NAMES_FROM])])
    if type(names) is not list or set(map(type, names)) != {int}:
        raise wire.WireError(f"no names of definitions: {names!r:.80}")
    return names


def make_failure(text: str, payload: bytes, lines: Sequence[int]) -> bytes:
    """Return the payload of a failure.

    Args:
        text: Its traceback.
        payload: The payload of the exception.
        lines: The lines that this names.
    """
    return with_names(wire.pack([wire.text(text), payload]), lines)


def read_failure(failure: bytes) -> tuple[str, bytes]:
    """Return the traceback of a failure and the payload of its exception.

    Raises:
        Exception: It is not a failure.
    """
    text, payload = wire.unpack(without_names(failure) if failure[0] == NAMING else failure)
    if type(text) is not str or type(payload) is not bytes:
        raise wire.WireError(f"no failure: {text!r:.80}")
    return text, payload


def text_in(failure: Any) -> str:
    """Return the traceback of a failure; "" if it is not one."""
    try:
        return read_failure(failure)[0]
    except Exception:  # noqa: BLE001  it may be anything
        return ""


def without_names(payload: bytes) -> bytes:
    """Return the pickle of a payload that begins with names."""
    return payload[_NAMES_FROM + int.from_bytes(payload[1:_NAMES_FROM]) :]


def is_plain(value: Any) -> bool:
    """Return whether a value is its own payload: msgpack carries it exactly, and it is short."""
    kind = type(value)
    if kind is int:
        return bool(-(1 << 63) <= value < 1 << 64)
    if kind is str:
        return len(value) <= SHORT_TEXT and bool(value.isascii())
    return kind is float or kind is bool or value is None
