"""Values to payloads and back, in the host and in its workers alike.

Objects that a fresh interpreter can import are pickled by name, the rest by value, with codes and
classes by number (`catalog`). Pickles are written by `pickler` and call functions of `restore` when
read; the forms of a payload are in `payloads`.

Never try plain pickle first and something better on error: plain pickle accepts instances of
classes of `__main__`, and only the worker would find out.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._transport import wire
from ..errors import RemoteError, RemoteTraceback
from .catalog import Catalog
from .failures import describe, set_cause, text_of
from .inherited import CallPickler
from .names import type_name
from .payloads import NAMING, PICKLED, SCALARS, Scalars, is_plain, read_failure, without_names
from .pickler import DurablePickler, LenientPickler, Pickler
from .restore import active

_scalars = Scalars()


class Codec(Catalog):
    """A catalog that encodes and decodes values."""

    def encode(self, value: Any) -> wire.Payload:
        """Return the payload of a value, exact in its types.

        Raises:
            Exception: Whatever pickle or the value's own methods raise.
        """
        if is_plain(value):
            return value  # type: ignore[no-any-return]  # a number, a text or None
        if type(value) in SCALARS:
            try:
                return _scalars.pack(value)
            except (OverflowError, ValueError):  # an int over 64 bit, a lone surrogate
                pass
        return self.pickle(value)

    def encode_scalars(self, values: Sequence[Any]) -> bytes | None:
        """Return the payload of a list of scalars; None if anything else is among them."""
        for value in values:
            if type(value) not in SCALARS:
                return None
        try:
            return _scalars.pack(list(values))
        except (OverflowError, ValueError):
            return None

    def encode_plain_rows(self, rows: Iterable[tuple[Any, ...]]) -> list[bytes]:
        """Return the result of `encode_scalars` for each row, of plain values only."""
        return list(map(_scalars.pack_plain, rows))

    def pickle(self, value: object) -> bytes:
        """Pickle a value, with codes and classes by number.

        Raises:
            Exception: Whatever pickle or the value's own methods raise.
            KeyboardInterrupt: A Ctrl-C, perhaps.
        """
        return self.dump(value)[0]

    def dump(
        self, value: object, number_class: Callable[[type], int] | None = None
    ) -> tuple[bytes, list[int]]:
        """Pickle a value as `pickle` does, and also return the lines that its pickle names.

        Args:
            value: Anything.
            number_class: If given, by-value classes without a number are pickled in full, with
                the number that this returns for them.
        """
        return _write(Pickler(self, number_class), value)

    def dump_call(self, value: object) -> tuple[bytes, list[int]]:
        """Pickle a call of the initializer; locks, queues and the like go to `handed`."""
        return CallPickler(self).write(value)

    def dump_durable(self, value: object) -> bytes:
        """Pickle a value for another host: nothing by value or by a number of this one."""
        return _write(DurablePickler(self), value)[0]

    def dump_some(self, value: object) -> tuple[bytes, list[int]]:
        """Pickle as `dump` does; exceptions in it lose the attributes that cannot travel."""
        return LenientPickler(self).write(value)

    def decode(self, payload: wire.Payload) -> Any:
        """Return the value of a payload.

        Raises:
            Exception: Whatever unpickling raises.
        """
        if not isinstance(payload, bytes):
            return payload
        if payload[0] == NAMING:
            payload = without_names(payload)
        if payload[0] != PICKLED:
            return wire.unpack(payload)
        outer = getattr(active, "catalog", None)
        active.catalog = self
        try:
            return pickle.loads(payload)
        finally:
            active.catalog = outer

    def decode_result(self, payload: wire.Payload) -> Any:
        """Return the result in a payload.

        Raises:
            RemoteError: It cannot be unpickled here.
            KeyboardInterrupt: A Ctrl-C, perhaps, which has nothing to do with the result.
        """
        if not isinstance(payload, bytes):
            return payload
        try:
            return self.decode(payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            why = f"the outcome cannot be unpickled in this process: {describe(str, error)}"
            raise RemoteError(type_name(error), why, text_of(error)) from error

    def decode_failure(self, payload: bytes) -> BaseException:
        """Return what a task raised, with the worker's traceback as its cause.

        Raises:
            RemoteError: It cannot be unpickled here.
            KeyboardInterrupt: As in `decode_result`.
        """
        text, inner = read_failure(payload)
        error = self.decode_result(inner)
        if not isinstance(error, BaseException):
            why = f"a failure of the task became {describe(repr, error)} in this process"
            return RemoteError(type_name(error), why, text)
        # A RemoteError may already contain the text.
        own = getattr(error, "remote_traceback", "") if type(error) is RemoteError else ""
        if text and wire.text(own) != text:
            set_cause(error, RemoteTraceback(text))
        return error


def _write(pickler: Pickler, value: object) -> tuple[bytes, list[int]]:
    try:
        return pickler.write(value)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:  # a sys.exit(), or a panic of a Rust library
        raise pickle.PicklingError(f"pickling it raised {error!r}") from error
