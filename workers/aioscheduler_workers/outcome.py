"""The payloads with which a worker reports the ends of tasks.

Nothing here can fail, whatever a user's class does while it is pickled, read again, printed or its
attributes are read: an outcome that cannot travel becomes a `RemoteError` that says so.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable

from aioscheduler._shipping.failures import describe, text_of, text_of_unasked
from aioscheduler._shipping.names import type_name
from aioscheduler._shipping.payloads import make_failure, read_failure
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler.errors import RemoteError

_LOST = RemoteError("unknown", "the task failed, and its failure could not be reported", "")
_LAST_WORDS = make_failure("", pickle.dumps(_LOST, 5), ())


def encode_failure(catalog: WorkerCatalog, error: BaseException) -> bytes:
    """Return the payload of an error that a task raised."""
    return _whatever_happens(lambda: _encode_failure(catalog, error))


def encode_unopened(catalog: WorkerCatalog, error: BaseException) -> bytes:
    """Return the payload of an error from importing a task's function or reading its arguments.

    A module that calls `sys.exit` when it is imported, or raises CancelledError, must not end or
    cancel anything in the host.
    """
    if isinstance(error, Exception):
        return encode_failure(catalog, error)
    why = "it was raised while the function was imported or its arguments were read"
    return _whatever_happens(lambda: _stand_in(error, why))


def encode_unasked(error: BaseException) -> bytes:
    """Return the payload of a cancellation that nobody requested: only its text."""
    return _whatever_happens(lambda: make_failure(text_of_unasked(error), b"", ()))


def encode_refusal(value: object, error: BaseException) -> bytes:
    """Return the payload of the failure that replaces a result that cannot travel."""

    def encode() -> bytes:
        why = f"the task returned a value that cannot travel: {describe(repr, value)}"
        return _of_ours(RemoteError(type_name(value), why, text_of(error)))

    return _whatever_happens(encode)


def _encode_failure(catalog: WorkerCatalog, error: BaseException) -> bytes:
    with contextlib.suppress(BaseException):  # its class may forbid notes
        catalog.explain(error)
    text = text_of(error)
    for some in (False, True):
        try:
            payload = catalog.pickle_failure(error, text, some)
            copy = catalog.decode(read_failure(payload)[1])  # to be sure that the host can read it
            if type(copy) is type(error):
                return payload
            why = f"its copy would be a {type(copy).__qualname__}"
        except BaseException as reason:  # noqa: BLE001  a user's class may raise anything here
            why = (
                f"it cannot be pickled and read again: {describe(repr, reason)}; let its args be "
                "plain data, or define __reduce__"
            )
    return _stand_in(error, why)


def _stand_in(error: BaseException, why: str) -> bytes:
    stand_in = RemoteError(type_name(error), describe(str, error), f"{text_of(error)}\n({why})")
    return _of_ours(stand_in)


def _of_ours(error: RemoteError) -> bytes:
    """Return the payload of a stand-in, whose own text has the traceback of the failure."""
    return make_failure(error.remote_traceback or str(error), pickle.dumps(error, 5), ())


def _whatever_happens(encode: Callable[[], bytes]) -> bytes:
    try:
        return encode()
    except BaseException:  # noqa: BLE001  such as a MemoryError
        return _LAST_WORDS
