"""A store in one SQLite file, by the standard library's `sqlite3`.

    SQLiteStore ── connection ── PATH, PATH-wal     the only one, in the writer's thread
         └─ Lock ── PATH.lock                       taken first, released last

1. While the connection is open nothing else opens the file: to close a second descriptor in the
   same process drops SQLite's own lock. So checks use only `os.stat`.
2. Before anything is written, lock file, file and log at their paths must be those that were
   opened.
3. A connection is not closed once the lock is lost, nor in a forked child: SQLite would write its
   log to the file and delete it, under a running host.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import isfinite
from typing import Any, Literal, TypeVar

from ..errors import StoreError
from . import schema
from .columns import WIDTH, functions_out, read_letter, rows_out, write
from .faults import REFUSALS, complaint, failure, is_busy, is_corrupt, locked, refusal
from .lock import HandedOver, Lock, holders
from .parts import Parts
from .reading import find
from .records import Batch, Letter, Opening, Page, Position, Row, StoreGone
from .repeatrows import read_repeats, write_repeats
from .salvage import letters_page, read_page, scan_ids_page, scan_page

T = TypeVar("T")

GAP = 1 << 32
"""How many row numbers may have been given but not stored when a host dies."""

_open: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()


def _abandon() -> None:
    """Forget the connections in a forked child: they are the parent's."""
    for store in list(_open):
        store._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon)


class SQLiteStore:
    """A file of durable tasks. Pass it to one `Manager` as `store=`, or pass just its path.

    The file must be on a local disk. Beside it are its log, PATH-wal, and PATH.lock, which admits
    one host at a time; leave both alone. To restore a backup, replace the file by it while no host
    is running, and delete the log.

    Args:
        path: Its path; the file is made if it does not exist. ":memory:" is a store for tests,
            which lives as long as this object.
        synchronous: "full": stored tasks outlive a power cut. "normal": stored tasks outlive every
            death of the program, but a power cut may lose the last seconds.
        wait: Seconds to wait for another host, or its last workers, to release the file.

    Raises:
        ValueError: `path` is empty or has a null character, `synchronous` is neither "full" nor
            "normal", or `wait` is negative or not finite.
        TypeError: `path` is not a path, or `wait` not a number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: Literal["full", "normal"] = "full",
        wait: float = 5.0,
    ) -> None:
        name = os.fspath(path)
        if not isinstance(name, str):
            raise TypeError(f"path must be a str or a path object, not {type(name).__name__}")
        if not name or "\0" in name:
            raise ValueError(f"path must be the path of a file, not {name!r}")
        if synchronous not in ("full", "normal"):
            raise ValueError(f'synchronous must be "full" or "normal", not {synchronous!r}')
        if isinstance(wait, bool) or not isinstance(wait, (int, float)):
            raise TypeError(f"wait must be a number of seconds, not {type(wait).__name__}")
        if not (isfinite(wait) and wait >= 0):
            raise ValueError(f"wait must be finite and not negative, not {wait!r}")
        self._in_memory = name == ":memory:"
        self._path = name if self._in_memory else os.path.abspath(name)
        self._synchronous = synchronous
        self._wait = wait
        self._connection: sqlite3.Connection | None = None
        self._private: sqlite3.Connection | None = None  # of ":memory:", which outlives `close`
        self._lock: Lock | None = None
        # By path: each open file, and its least size in bytes.
        self._files: dict[str, tuple[os.stat_result, int]] = {}
        self._truncated = False
        self._reserved = 0  # by the file, no row from here on was given
        self._gaps: set[tuple[int, int]] = set()  # bucket and row of what could not be read
        self._sizes: tuple[int, ...] = ()
        self._counts = 0, 0  # of tasks and dead letters, as the file has them
        self._parts = Parts()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    @property
    def path(self) -> str:
        """Its absolute path, or ":memory:"."""
        return self._path

    @property
    def complaint(self) -> str:
        """What is wrong with the file, though it can be used; usually empty."""
        return complaint(self._path, len(self._gaps))

    def open(self) -> Opening:
        """Take the lock, make or check the file, and note that a host has it."""
        if self._connection is not None:
            raise locked(self._path, (os.getpid(),))
        if self._in_memory:
            if self._private is None:
                self._private = sqlite3.connect(
                    ":memory:", isolation_level=None, check_same_thread=False
                )
                weakref.finalize(self, self._private.close)
                schema.fill(self._private)
            self._connection = self._private
            return self._begin(self._private, 0)
        self._files, self._truncated = {}, False
        path = os.path.realpath(self._path)
        try:
            folder = os.path.dirname(path)
            if not os.path.isdir(folder):
                raise StoreError(f"{path} cannot be made, as there is no folder {folder}: make it")
            self._lock = Lock(path)
            self._lock.take(self._wait)
            return self._open_file(path, self._lock)
        except BaseException as error:
            self._leave()
            if self._lock is not None:
                self._lock.abandon()
            self._lock = None
            if is_busy(error):  # the lock file was deleted under another host
                raise locked(self._path, holders(path)) from error
            if isinstance(error, (sqlite3.Error, OSError)):
                raise failure(self._path, "opened", error) from error
            raise

    def _open_file(self, path: str, lock: Lock) -> Opening:
        heartbeat = lock.heartbeat
        if not schema.look_at(path, lock.had_host):
            schema.make(path)
            heartbeat = 0
        elif not heartbeat:  # the file was copied without its lock file
            heartbeat = schema.last_written(path)
        connection = self._connection = sqlite3.connect(
            path, timeout=self._wait, isolation_level=None, check_same_thread=False
        )
        _open.add(self)
        schema.configure(connection, path, self._synchronous)
        schema.migrate(connection, path)
        opening = self._begin(connection, heartbeat)
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        log = f"{path}-wal"
        self._files = {path: (os.stat(path), page), log: (os.stat(log), 0)}
        return opening

    def _begin(self, connection: sqlite3.Connection, heartbeat: int) -> Opening:
        """Read the state of the file, and write that a host has it."""
        self._gaps.clear()
        limit = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // WIDTH
        # A statement that puts many rows releases the GIL once, and not once a row.
        self._sizes = tuple(size for size in (256, 64, 16, 4) if size <= limit)
        meta: dict[str, Any] = dict(connection.execute("SELECT name, value FROM meta"))
        identity = meta.get("identity")
        numbers: list[Any] = [meta.get(name) for name in ("next_row", "tasks", "letters")]
        if not isinstance(identity, bytes) or {int} != set(map(type, numbers)):
            raise sqlite3.DatabaseError("its table meta is damaged")
        first, tasks, letters = map(int, numbers)
        self._counts = tasks, letters
        self._reserved = first + GAP
        with self._transaction(connection):
            _set_meta(connection, clean=0, next_row=self._reserved)
        return Opening(
            int.from_bytes(identity, "big"),
            first,
            functions_out(connection.execute("SELECT number, name, place, once FROM func")),
            tasks,
            letters,
            bool(meta.get("clean")),
            heartbeat,
            read_repeats(connection, self._path),
        )

    def read(self, after: Position, until: int, most: int) -> Page:
        """Read the tasks behind a position that are due at `until` at the latest."""
        page, bad = read_page(self._parts, self._usable(), after, until, most, self._rows)
        self._gaps.update(bad)
        return page

    def find(self, ids: Sequence[str], rows: Sequence[Position]) -> list[Row]:
        """Return the tasks that have one of these ids or row numbers."""
        return self._rows(self._ask(find, ids, rows))

    def scan(self, after: tuple[int, int], most: int) -> list[Row]:
        """Return tasks in order of bucket and row, behind such a key."""
        found = self._ask(scan_page, after, most, self._gaps)
        while not (rows := self._rows(found)) and found:  # all malformed, but not the end
            found = self._ask(scan_page, found[-1][:2], most, self._gaps)
        return rows

    def scan_ids(self, prefix: str, after: str | None, most: int) -> list[Row]:
        """Return tasks whose ids begin with a prefix, in order of their ids."""
        found = self._ask(scan_ids_page, prefix, after, most, self._gaps)
        while not (rows := self._rows(found)) and found:
            found = self._ask(scan_ids_page, prefix, found[-1][6], most, self._gaps)
        return rows

    def _ask(self, query: Callable[..., Iterable[T]], *asked: Any) -> list[T]:
        connection = self._usable()
        try:
            return list(query(connection, *asked))
        except sqlite3.Error as error:
            raise failure(self._path, "read", error) from error

    def _rows(self, found: Sequence[tuple[Any, ...]]) -> list[Row]:
        rows, odd = rows_out(found)
        self._gaps.update(odd)
        return rows

    def commit(self, batch: Batch) -> None:
        """Write a batch: all of it is on disk when this returns, and nothing if it raises."""
        connection = self._usable()
        reserved = self._reserved
        self._parts.changes(batch)
        try:
            with self._transaction(connection):
                try:
                    change = write(connection, batch, self._sizes)
                    write_repeats(connection, batch.repeats)
                except REFUSALS as error:
                    raise refusal(self._path, error) from error
                tasks, letters = (a + b for a, b in zip(self._counts, change, strict=True))
                if any(change):
                    _set_meta(connection, tasks=tasks, letters=letters)
                if batch.next_row > reserved - GAP // 2:
                    reserved = batch.next_row + GAP
                    _set_meta(connection, next_row=reserved)
        except sqlite3.Error as error:
            if is_corrupt(error):
                raise refusal(self._path, error) from error
            raise failure(self._path, "written", error) from error
        self._reserved, self._counts = reserved, (tasks, letters)

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        schema.roll_back(connection)  # a former one may not have been rolled back
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException:
            schema.roll_back(connection)
            raise

    def letters(self, after: int, most: int) -> list[Letter]:
        """Return dead letters with a row over `after`, in order, without their payloads."""
        return self._ask(letters_page, after, most, self._gaps)

    def letter(self, row: int) -> Letter | None:
        """Return a dead letter, by its number, with its payload; None: there is none."""
        connection = self._usable()
        try:
            return read_letter(connection, row)
        except sqlite3.Error as error:
            raise failure(self._path, "read", error) from error

    def tick(self, now: int) -> None:
        """Note that the host is alive, and free unused pages; called once a second."""
        connection = self._usable()
        if self._lock is not None:
            self._lock.beat(now)
        with suppress(sqlite3.Error):  # the next batch reports what is wrong
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free > 1024 and free > connection.execute("PRAGMA page_count").fetchone()[0] // 4:
                # As a script: `execute` would free only one page.
                connection.executescript("PRAGMA incremental_vacuum(256)")

    def size(self) -> int:
        """Return its size on disk in bytes."""
        connection = self._usable()
        if self._lock is not None:
            try:
                return sum(os.stat(name).st_size for name in self._files)
            except OSError as error:  # it has gone since the check
                raise failure(self._path, "read", error) from error
        pages, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "page_size")
        )
        return int(pages * size)

    def backup(self, path: str) -> None:
        """Copy all that was committed to a new file."""
        schema.back_up(self._usable(), self._path, path)

    def hand_over(self) -> HandedOver | None:
        """Return the lock for a worker process to hold; None for a store without a file."""
        return None if self._lock is None else self._lock.hand_over()

    def close(self, clean: bool) -> None:
        """Close the file; with `clean` note that nothing was under way. May be repeated."""
        if self._connection is None:
            return
        try:
            connection = self._usable()
            if clean:
                with self._transaction(connection):
                    _set_meta(connection, clean=1)
        except sqlite3.Error as error:
            raise failure(self._path, "closed in order", error) from error
        finally:
            self._leave()
            if self._lock is not None:
                self._lock.release()
            self._lock = None

    def _leave(self) -> None:
        """Close the connection, or forget it if that would do harm."""
        connection, lock = self._connection, self._lock
        if connection is not None and lock is not None:
            try:
                lock.check()
                if self._truncated:  # never write the log into a file that may become a backup
                    raise StoreGone
            except StoreGone:
                self._forget()
            else:
                # Even if the file was moved: its log goes into it, and none is left behind.
                with suppress(sqlite3.Error):
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.close()
        self._connection = None
        _open.discard(self)

    def _forget(self) -> None:
        """Keep the connection from ever being closed in this process."""
        import ctypes  # only needed here

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        self._connection = None

    def _usable(self) -> sqlite3.Connection:
        """Return the connection, after a check that the files are still those that it has open.

        Raises:
            StoreGone: They are not.
            StoreError: It is not open.
        """
        if self._connection is None:
            raise StoreError(f"{self._path} is not open in this process")
        if self._lock is not None:
            self._lock.check()
        for name, (opened, least) in self._files.items():
            try:
                found = os.stat(name)
                same = os.path.samestat(found, opened)
                self._truncated |= same and found.st_size < least
            except OSError:
                same = False
            if not same or self._truncated:
                raise StoreGone(
                    f"{name} was deleted, moved, emptied or replaced while this host was at work "
                    "on it. Nothing more is written; put it back, or another in its place, and "
                    "start this program again"
                )
        return self._connection


def _set_meta(connection: sqlite3.Connection, **values: int) -> None:
    pairs = [(value, name) for name, value in values.items()]
    connection.executemany("UPDATE meta SET value=? WHERE name=?", pairs)
