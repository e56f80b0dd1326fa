"""The errors of a file say what to do about them."""

from __future__ import annotations

import os
import sqlite3

import pytest

from aioscheduler._durable.faults import REFUSALS, failure, is_busy, locked, refusal
from aioscheduler._durable.records import Unwritable
from aioscheduler.errors import StoreError, StoreLocked


def error_of(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "Make room on its disk"),
        (sqlite3.SQLITE_IOERR_FSYNC, "Look at its disk"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "writable"),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, "modes of its folder"),
        (sqlite3.SQLITE_CORRUPT, "sqlite3 /x/tasks.db .recover"),
        (sqlite3.SQLITE_NOTADB, "sqlite3 /x/tasks.db .recover"),
    ],
)
def test_each_has_its_remedy(code: int, words: str) -> None:
    error = failure("/x/tasks.db", "written", error_of(code))
    assert type(error) is StoreError
    assert str(error).startswith("/x/tasks.db cannot be written: what SQLite says. ")
    assert words in str(error)


@pytest.mark.parametrize("error", [error_of(1), OSError(28, "No space left"), ValueError("so")])
def test_an_unknown_error_says_what_it_is(error: Exception) -> None:
    assert str(failure("/x", "opened", error)) == f"/x cannot be opened: {error}"


def test_another_connection_is_known() -> None:
    assert is_busy(error_of(sqlite3.SQLITE_BUSY_RECOVERY))
    assert is_busy(error_of(sqlite3.SQLITE_LOCKED))
    assert not is_busy(error_of(sqlite3.SQLITE_FULL))
    assert not is_busy(OSError())


@pytest.mark.parametrize(
    ("pids", "words"),
    [
        ((), "by an unknown process"),
        ((5,), "by process 5: another host or its last workers, or a program that has the file"),
        ((5, 6), "by processes 5, 6:"),
        ((os.getpid(),), "by this very process"),
    ],
)
def test_who_has_it_is_named(pids: tuple[int, ...], words: str) -> None:
    error = locked("/x/tasks.db", pids)
    assert type(error) is StoreLocked
    assert error.pids == pids
    assert words in str(error)
    assert ("end it" if pids != (os.getpid(),) else "close that one first") in str(error)


def test_a_refused_value_is_not_an_error_of_the_file() -> None:
    error = refusal("/x/tasks.db", OverflowError("too large"))
    assert type(error) is Unwritable
    assert str(error).startswith("/x/tasks.db does not accept what was to be written: Overflow")
    assert not isinstance(error_of(sqlite3.SQLITE_FULL), REFUSALS)
