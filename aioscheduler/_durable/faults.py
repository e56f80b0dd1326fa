"""The errors of a file, with messages that say what to do about them."""

from __future__ import annotations

import os
import sqlite3

from ..errors import StoreError, StoreLocked
from .records import Unwritable

RECOVER = (
    "With no host at work, save what can be saved by `sqlite3 {path} .recover | sqlite3 NEW`, or "
    "put a backup in its place"
)
REFUSALS = (
    sqlite3.DataError,  # too large a text, or too many bytes
    sqlite3.IntegrityError,  # an id that another task has
    sqlite3.InterfaceError,  # values of types that SQLite does not know
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
    AttributeError,
)
"""Raised within a transaction for values that can never be written."""

_REMEDIES = {
    sqlite3.SQLITE_FULL: "Make room on its disk: nothing that was stored is lost",
    sqlite3.SQLITE_IOERR: "Look at its disk, and at what the system's log says of it",
    sqlite3.SQLITE_READONLY: "Make it, and its filesystem, writable",
    sqlite3.SQLITE_CANTOPEN: "Look at the modes of its folder, and at how many files are open",
    sqlite3.SQLITE_CORRUPT: RECOVER,
    sqlite3.SQLITE_NOTADB: RECOVER,
}


def failure(path: str, what: str, error: Exception) -> StoreError:
    """Return the error of a store that cannot be `what` (read, written), from its cause."""
    remedy = _REMEDIES.get(_code(error), "").format(path=path)
    return StoreError(f"{path} cannot be {what}: {error}{remedy and f'. {remedy}'}")


def complaint(path: str, count: int) -> str:
    """Return the complaint about a file with `count` gaps; "": it has none."""
    if not count:
        return ""
    return (
        f"{path} is corrupt: tasks at {count} {'place' if count == 1 else 'places'} cannot be read "
        f"and are left out, all else goes on. {RECOVER.format(path=path)}"
    )


def refusal(path: str, error: Exception) -> Unwritable:
    """Return the error of a batch whose own contents cannot be written."""
    return Unwritable(
        f"{path} does not accept what was to be written: {type(error).__name__}: {error}"
    )


def is_corrupt(error: BaseException) -> bool:
    """Return whether a page of the file is damaged: batches on other pages can be written."""
    return _code(error) == sqlite3.SQLITE_CORRUPT


def is_busy(error: BaseException) -> bool:
    """Return whether the error says that another connection has the file."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _code(error: BaseException) -> int:
    """Return SQLite's primary error code; 0 for any other error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def locked(path: str, pids: tuple[int, ...]) -> StoreLocked:
    """Return the error of a store that other processes have open."""
    if pids == (os.getpid(),):
        return StoreLocked(
            f"{path} is in use by this very process ({pids[0]}), by another manager. One host at a "
            "time: close that one first, or schedule with it",
            pids,
        )
    named = f"process{'es' * (len(pids) > 1)} {', '.join(map(str, pids))}"
    who = named if pids else "an unknown process"
    return StoreLocked(
        f"{path} is in use by {who}: another host or its last workers, or a program that has the "
        "file open, such as a shell of SQLite. One host at a time: wait for it to close, or end it",
        pids,
    )
