"""The file of a store that no host has open, for tools that inspect or change it.

    look ─► Look ── Lock, not signed ── a connection that cannot write ── PATH, PATH-wal
    change ─► Changes ── SQLiteStore

1. Nothing is made where there is no store.
2. `look` changes no byte of file, log or lock file.
3. `change` is not a host: whether the last host ended in order, and when it was last known to be
   alive, stay as they were, as the next host derives from them what may have been running.
4. A payload is bytes here: no user code is imported or unpickled.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import StoreError, UnknownTask
from . import schema
from .columns import DAMAGED, functions_out
from .faults import complaint, failure, is_corrupt, locked
from .group import MOST_BYTES
from .lock import Lock, holders
from .offlinerecords import StoreInfo, TaskLine
from .offlinetasks import count_tasks, list_tasks, text_or_none
from .records import Batch, Letter, Opening, Reason, Row, Unwritable
from .salvage import letters_page
from .sqlite import SQLiteStore
from .values import text_or_error

PAGE = 256  # dead letters that are read, put back or dropped at a time

_BAD = "a corrupt page of the file is in the way"


class Outcome(NamedTuple):
    """The result of putting a dead letter back.

    Attributes:
        row: Its number.
        task: The number of the task that replaced it; None: it is still there.
        why: The reason, if it is.
    """

    row: int
    task: int | None
    why: str = ""


# ---- inspection


@contextmanager
def look(path: str) -> Iterator[Look]:
    """Open a file for reading. No host can open it meanwhile.

    Raises:
        StoreLocked: A host, or another program, has it open.
        StoreError: There is none, it is not a store, or it cannot be read.
    """
    real = os.path.realpath(path)
    if not (os.path.lexists(real) or os.path.lexists(f"{real}-wal")):
        raise StoreError(f"there is no file {real}")
    lock = Lock(real)
    lock.take(0, sign=False)
    try:
        with closing(_open(real, lock.had_host)) as connection:
            yield Look(real, connection, lock)
    finally:
        lock.abandon()


def _open(path: str, had_host: bool) -> sqlite3.Connection:
    """Return a connection that leaves no trace to a file that nobody else has open.

    The log is read with the file. For that SQLite makes another file, to share an index of the log
    with other processes, unless it has no locks and so cannot know of any.
    """
    try:
        if not schema.look_at(path, had_host, writable=False):
            raise StoreError(f"{path} is empty: nothing was ever stored in it")
        if pids := holders(path):  # a shell of SQLite, or a host whose lock file was deleted
            raise locked(path, pids)
        how = "vfs=unix-none" if _log_size(path) else "immutable=1"
        address = f"{Path(path).as_uri()}?mode=ro&{how}"
        return sqlite3.connect(address, uri=True, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise failure(path, "opened", error) from error


def _log_size(path: str) -> int:
    log = f"{path}-wal"
    return os.path.getsize(log) if os.path.exists(log) else 0


class Look:
    """A file that is open for reading.

    Args:
        path: Its path, absolute and without links.
        connection: A connection to it.
        lock: Its lock.

    Attributes:
        info: The figures of the file as a whole.
        names: The names of its functions, as given to `@durable`, by number.
    """

    def __init__(self, path: str, connection: sqlite3.Connection, lock: Lock) -> None:
        self._path = path
        self._connection = connection
        self._schema = schema.SCHEMA  # until it is read
        self._gaps: set[tuple[int, int]] = set()  # bucket and row of what could not be read
        with self._reading():
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA trusted_schema=OFF")
            self._schema = schema.check(connection, path)
            clean = connection.execute("SELECT value FROM meta WHERE name='clean'").fetchone()
            functions = connection.execute("SELECT number, name, place, once FROM func")
            self.names: dict[int, str] = {f.number: f.name for f in functions_out(functions)}
        self.info: StoreInfo = StoreInfo(
            path,
            self._schema,
            self._schema < schema.SCHEMA,
            os.path.getsize(path),
            _log_size(path),
            clean is not None and clean[0] == 1,
            lock.heartbeat or schema.last_written(path),
            lock.heartbeat > 0,
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self._connection.text_factory = text_or_error
        try:
            yield
        except sqlite3.OperationalError as error:
            if self._schema < schema.SCHEMA and error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                raise StoreError(
                    f"{self._path} was written by an older aioscheduler (schema {self._schema}), "
                    f"and this one reads {schema.SCHEMA}: the next host will upgrade it"
                ) from error
            raise failure(self._path, "read", error) from error
        except sqlite3.Error as error:
            raise failure(self._path, "read", error) from error

    @property
    def complaint(self) -> str:
        """What could not be read so far; usually empty."""
        return complaint(self._path, len(self._gaps))

    def count_tasks(self) -> dict[str | None, tuple[int, int | None]]:
        """Return the number of tasks of each function, and when the next one is due.

        The keys are names, and None for unknown functions.
        """
        with self._reading():
            return count_tasks(self._connection, self.names, self._gaps)

    def count_repeats(self) -> tuple[int, int]:
        """Return how many repeats there are, and how many of them are paused."""
        with self._reading():
            has = "SELECT count(*) FROM sqlite_master WHERE name='repeat'"  # schema 1 has none
            if not self._connection.execute(has).fetchone()[0]:
                return 0, 0
            query = "SELECT count(*), count(CASE paused WHEN 1 THEN 1 END) FROM repeat"
            number, paused = self._connection.execute(query).fetchone()
            return number, paused

    def count_letters(self) -> dict[str, int]:
        """Return the number of dead letters by reason."""
        with self._reading():
            query = "SELECT reason, count(*) FROM dead_letter GROUP BY reason"
            try:
                found = self._connection.execute(query).fetchall()
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                return dict(Counter(letter.reason.value for letter in self.letters()))
            return {text_or_none(reason) or "?": count for reason, count in found}

    def tasks(
        self, name: str | None = None, id_prefix: str = "", limit: int | None = None
    ) -> Generator[TaskLine, None, None]:
        """Yield tasks in order of due time and row, with few of them in memory.

        A generator that is not exhausted must be closed before the file is.

        Args:
            name: Only tasks of this function.
            id_prefix: Only tasks whose id begins with this.
            limit: The largest number of tasks; None: all.

        Raises:
            UnknownTask: The file knows no such function.
            StoreError: By the generator: they cannot be read.
        """
        numbers = [number for number, known in self.names.items() if known == name]
        if name is not None and not numbers:
            known = ", ".join(sorted(self.names.values())) or "none"
            raise UnknownTask(f"{self._path} knows no function {name}; it knows {known}")
        return self._tasks(numbers[0] if numbers else None, id_prefix, limit)

    def _tasks(
        self, function: int | None, id_prefix: str, limit: int | None
    ) -> Generator[TaskLine, None, None]:
        asked = self._connection, self.names, function, id_prefix, limit, self._gaps
        with self._reading(), closing(list_tasks(*asked)) as found:
            yield from islice(found, limit)

    def letters(self, reason: Reason | None = None) -> Iterator[Letter]:
        """Yield dead letters in order of row, without their payloads.

        Raises:
            StoreError: They cannot be read.
        """
        after = -1
        while True:
            with self._reading():
                page = letters_page(self._connection, after, PAGE, self._gaps)
            if not page:
                return
            yield from (letter for letter in page if reason in (None, letter.reason))
            after = page[-1].row

    def backup(self, path: str) -> None:
        """Copy the whole file to a new one.

        Raises:
            StoreError: The path exists, or it cannot be written.
        """
        copy = schema.back_up(self._connection, self._path, path)
        if not self.info.clean:  # it has no lock file: its own time says when a host was alive
            os.utime(copy, ns=(self.info.lived, self.info.lived))


# ---- changes


@contextmanager
def change(path: str) -> Iterator[Changes]:
    """Open a file for changes. An older one is upgraded, as by a host.

    Raises:
        StoreLocked: A host, or another program, has it open.
        StoreError: There is none, it is not a store, or it cannot be written.
    """
    with look(path):  # a store would make a missing file
        pass
    store = SQLiteStore(path, wait=0)
    opening = store.open()
    try:
        store.tick(opening.heartbeat)  # else the present would count as a host's last sign of life
        yield Changes(store, opening)
    finally:
        store.close(opening.clean)


class Changes:
    """A file that is open for changes.

    Args:
        store: Its store, which is open.
        opening: What `open` has returned.
    """

    def __init__(self, store: SQLiteStore, opening: Opening) -> None:
        self._store = store
        self._next_row = opening.next_row

    @property
    def complaint(self) -> str:
        """What could not be read so far; usually empty."""
        return self._store.complaint

    def rows(self, reason: Reason | None, before: int | None = None) -> Iterator[int]:
        """Yield the numbers of dead letters.

        Args:
            reason: Only those with this reason; None: all.
            before: Only those buried before this time, in nanoseconds since the epoch; None: all.
        """
        after = -1
        while page := self._store.letters(after, PAGE):
            for letter in page:
                if reason in (None, letter.reason) and (before is None or letter.at < before):
                    yield letter.row
            after = page[-1].row

    def requeue(self, rows: Iterable[int], now: int) -> Iterator[Outcome]:
        """Put dead letters back as tasks, with their arguments, keys and ids, as attempt 1.

        Args:
            rows: The numbers of the dead letters.
            now: When they are due, in nanoseconds since the epoch.

        Yields:
            The outcome of each, once it is on disk.

        Raises:
            UnknownTask: There is no such letter.
        """
        lot: list[Letter] = []
        size = 0
        for row in rows:
            try:
                letter = self.find(row)
            except StoreError as error:
                if not is_corrupt(error.__cause__ or error):
                    raise
                yield Outcome(row, None, _BAD)
                continue
            if letter.text.startswith(DAMAGED) or not letter.name:
                yield Outcome(row, None, "it is damaged in the file")
                continue
            lot.append(letter)
            size += len(letter.payload or b"")
            if len(lot) >= PAGE or size >= MOST_BYTES:
                yield from self._put_back(lot, now)
                lot, size = [], 0
        if lot:
            yield from self._put_back(lot, now)

    def _put_back(self, letters: Sequence[Letter], now: int) -> Iterator[Outcome]:
        first = self._next_row
        puts = [_put(first + n, letter, now) for n, letter in enumerate(letters)]
        next_row = first + len(puts)
        batch = Batch(puts=puts, discards=[each.row for each in letters], next_row=next_row)
        try:
            self._store.commit(batch)
        except Unwritable as error:  # nothing of it was written
            is_bad = is_corrupt(error.__cause__ or error)
            if not is_bad and not isinstance(error.__cause__, sqlite3.IntegrityError):
                raise
            if len(letters) == 1:
                why = _BAD if is_bad else f"another task has its id, {letters[0].id}"
                yield Outcome(letters[0].row, None, why)
                return
            half = len(letters) // 2
            yield from self._put_back(letters[:half], now)
            yield from self._put_back(letters[half:], now)
            return
        self._next_row = next_row
        for letter, put in zip(letters, puts, strict=True):
            yield Outcome(letter.row, put.row)

    def discard(self, rows: Iterable[int]) -> tuple[int, list[int]]:
        """Drop dead letters; return how many, and those that stay because of a corrupt page."""
        count = 0
        stay: list[int] = []
        each = iter(rows)
        while lot := list(islice(each, PAGE)):
            kept = self._drop(lot)
            count += len(lot) - len(kept)
            stay += kept
        return count, stay

    def _drop(self, rows: list[int]) -> list[int]:
        try:
            self._store.commit(Batch(discards=rows))
        except Unwritable as error:  # nothing of it was written
            if not is_corrupt(error.__cause__ or error):
                raise
            half = len(rows) // 2
            return self._drop(rows[:half]) + self._drop(rows[half:]) if half else rows
        return []

    def find(self, row: int) -> Letter:
        """Return a dead letter, by its number.

        Raises:
            UnknownTask: There is none.
        """
        letter = self._store.letter(row)
        if letter is None:
            raise UnknownTask(f"there is no dead letter {row}")
        return letter


def _put(number: int, letter: Letter, now: int) -> Row:
    due = now if letter.due else 0  # tasks of a queue have no due time
    assert letter.payload is not None
    fields = letter.function, letter.payload, letter.key, letter.id, letter.options
    return Row(number, due, *fields)
