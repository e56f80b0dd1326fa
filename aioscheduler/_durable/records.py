"""The words of a store: what a task is in it, what is written at once, and who writes it.

    Keeper ─► Group ─► Batch ─► Store.commit        one transaction
    Store.open ─► Opening                           at the start of a host
    Store.read ─► Page of Rows                      what is due soon, part by part
    Store.find, Store.scan, Store.scan_ids ─► Rows  what is asked for
    Store.letters ─► Letter …                       what has ended as a dead letter

A store is used by one thread, the writer's; only `path` and `hand_over` are for others. It knows
nothing of what a payload, a key or an option means. All times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Any, NamedTuple, Protocol

from ..errors import StoreError
from .repeatrecords import RepeatChange, RepeatRow

BUCKET_SHIFT = 42
"""A task's bucket is `due >> BUCKET_SHIFT`: 73 minutes, which costs the least bytes a put."""


Position = tuple[int, int]
"""Where a task is in the order in which tasks are read: due time and row."""

FIRST: Position = (-(1 << 63), -(1 << 63))
LAST: Position = ((1 << 63) - 1, (1 << 63) - 1)
"""Before and behind all tasks."""


def place_of_id(id_: str) -> tuple[bool, bytes]:
    """Return where an id is in the order of `Store.scan_ids`: ids that are no Unicode come last."""
    try:
        return False, id_.encode()
    except UnicodeEncodeError:
        return True, id_.encode("utf-8", "surrogatepass")


class Begun(IntEnum):
    """What the file says of a task's start (column `state`)."""

    NO = 0
    YES = 1  # it may have begun: a host that dies now has lost it once
    ONCE = 2  # the same, of a task that is not to begin a second time (`on_loss="fail"`)


class Reason(Enum):
    """Why a task is a dead letter."""

    FAILED = "failed"  # its last attempt has failed
    UNREADABLE = "unreadable"  # its arguments could not be read, or its module not be imported
    UNKNOWN = "unknown"  # no function of its name is registered
    LOST = "lost"  # in doubt, and not to begin again; or lost three times in a row
    TOO_LATE = "too_late"  # its `max_lateness` had passed


class Function(NamedTuple):
    """A durable function, as the file knows it.

    Attributes:
        number: By which tasks name it; it is given once.
        name: Of `@durable`.
        qualname: The last known `module:qualname`.
        once: Whether its tasks are not to begin a second time, as last known.
    """

    number: int
    name: str
    qualname: str
    once: bool


class Row(NamedTuple):
    """A task in the file.

    Attributes:
        row: Its number, which no other task of this file has or had.
        due: When it is to start; 0 in a queue.
        function: The number of its function.
        payload: Of its arguments; always bytes, which is all that SQLite gives back as it was.
        key: That of `schedule`.
        id: That of `schedule`.
        options: What goes with it besides, as bytes; None: nothing.
        begun: Whether it may have begun.
        attempt: How many times it has been started when it starts next.
        failed: How many attempts have failed.
        losses: How many times in a row its process, or its host, has died with it.
        given: The due time that it was given, if `due` is that of a further attempt.
    """

    row: int
    due: int
    function: int
    payload: bytes
    key: str | bytes | int | None = None
    id: str | None = None
    options: bytes | None = None
    begun: Begun = Begun.NO
    attempt: int = 1
    failed: int = 0
    losses: int = 0
    given: int | None = None

    @property
    def bucket(self) -> int:
        """Where it is in the file."""
        return self.due >> BUCKET_SHIFT

    @property
    def position(self) -> Position:
        """Where it is in the order in which tasks are read."""
        return self.due, self.row

    @property
    def is_plain(self) -> bool:
        """Whether it is as most are: there is nothing besides its function, payload and time."""
        return self[4:] == PLAIN


PLAIN = (None, None, None, Begun.NO, 1, 0, 0, None)
"""The last columns of most rows, from the key on."""


class Update(NamedTuple):
    """What changes of a task in the file: all of this is written.

    Attributes:
        bucket: Where it is now.
        row: Its number.
        due: As of `Row`, and so are the others; its bucket follows from it.
    """

    bucket: int
    row: int
    due: int
    begun: Begun
    attempt: int
    failed: int
    losses: int
    given: int | None
    id: str | None


class Burial(NamedTuple):
    """A task that becomes a dead letter.

    Attributes:
        bucket: Where it is in the file; it is there when this is written.
        row: Its number, which the letter keeps.
        attempt: How many times it has been started.
        reason: Why.
        text: More about that: a traceback, as a rule.
        at: When.
    """

    bucket: int
    row: int
    attempt: int
    reason: Reason
    text: str
    at: int


def headline_of(text: str) -> str:
    """Return the line of a traceback that has its error, and not the frames or the notes on it."""
    lines = text.rstrip().split("\n")
    frames = [number for number, line in enumerate(lines[:-1]) if line.startswith("  ")]
    return lines[frames[-1] + 1 if frames else -1]


class Letter(NamedTuple):
    """A dead letter in the file.

    Attributes:
        row: The number that its task had.
        due: When that was to start.
        function: The number of its function.
        name: Of that, as `@durable` has it.
        payload: Of its arguments; None if it was read as one of many, for it may be large.
        key: That of `schedule`.
        id: That of `schedule`.
        options: As of `Row`.
        attempt: How many times it was started.
        reason: Why it is one.
        text: More about that.
        at: Since when.
    """

    row: int
    due: int
    function: int
    name: str
    payload: bytes | None
    key: str | bytes | int | None
    id: str | None
    options: bytes | None
    attempt: int
    reason: Reason
    text: str
    at: int


class Batch(NamedTuple):
    """What is written in one transaction, in this order.

    Attributes:
        functions: That are new, or whose qualname or `once` has changed; by number.
        strikes: Tasks that are no more: bucket and row.
        updates: Of tasks that are in the file.
        puts: Tasks that are new.
        burials: Of tasks that are in the file, or among the puts.
        discards: Numbers of dead letters that are no more.
        requeues: Dead letters in whose place tasks have come: the numbers of letter and task. If
            that cannot be put, it stays a letter.
        repeats: What has changed of repeats, in the order in which it did.
        next_row: No row from this one on was given when the batch was made.
    """

    functions: Sequence[Function] = ()
    strikes: Sequence[tuple[int, int]] = ()
    updates: Sequence[Update] = ()
    puts: Sequence[Row] = ()
    burials: Sequence[Burial] = ()
    discards: Sequence[int] = ()
    requeues: Sequence[tuple[int, int]] = ()
    repeats: Sequence[RepeatChange] = ()
    next_row: int = 0


class Opening(NamedTuple):
    """What a store says when it has been opened.

    Attributes:
        identity: 128 random bits, the same for ever.
        next_row: The first row number to be given: none from here on was ever given.
        functions: All that it knows.
        tasks: How many tasks are in it.
        letters: How many dead letters.
        clean: Whether the last host closed it, with nothing under way.
        heartbeat: When the last host was last known to live; 0 if there was none.
        repeats: All that repeats.
    """

    identity: int
    next_row: int
    functions: Sequence[Function]
    tasks: int
    letters: int
    clean: bool
    heartbeat: int
    repeats: Sequence[RepeatRow] = ()


class Page(NamedTuple):
    """Tasks that were read one after another.

    Attributes:
        rows: They, in order of due time and row.
        reached: There is no other one in the file up to this position, from where it was read.
        behind: None behind it is due earlier than this; None: there is none behind it.
    """

    rows: list[Row]
    reached: Position
    behind: int | None


class Store(Protocol):
    """Where durable tasks are kept. Every call may take long, and raises StoreError alone."""

    @property
    def path(self) -> str:
        """What it is called in messages."""

    def open(self) -> Opening:
        """Take the lock, make or check the file, and note that a host is at work (not clean).

        Raises:
            StoreLocked: Another host has it, and has not let go for as long as is waited.
            StoreError: It cannot be used; it is as it was, and the lock is free.
        """

    def read(self, after: Position, until: int, most: int) -> Page:
        """Read the tasks behind a position, and due at `until` at the latest.

        They are about `most` rows at most, and fewer where arguments are large. What cannot be
        read is left out, and told by `complaint`.
        """

    def find(self, ids: Sequence[str], rows: Sequence[tuple[int, int]]) -> list[Row]:
        """Return the tasks that have one of these ids, or row numbers, as far as there are any.

        Args:
            ids: Of the tasks.
            rows: Their numbers, and when each was due, as last known: there it is looked for
                first. Elsewhere that takes a look at each bucket.
        """

    def scan(self, after: tuple[int, int], most: int) -> list[Row]:
        """Return tasks in order of bucket and row, from behind such a place.

        None: it is the end. What cannot be read is left out, and is a `complaint`.

        Raises:
            StoreError: Nothing can be read.
        """

    def scan_ids(self, prefix: str, after: str | None, most: int) -> list[Row]:
        """Return tasks whose ids begin so, by `place_of_id`; `after` is the last one so far.

        What cannot be read is left out, as by `scan`.

        Raises:
            StoreError: Nothing can be read, or not which ids there are.
        """

    @property
    def complaint(self) -> str:
        """What is wrong with the file, though it can be used; "" as a rule."""

    def commit(self, batch: Batch) -> None:
        """Write a batch: all of it is on disk when this returns, or nothing if it raises.

        Raises:
            StoreGone: The file or the lock is no more ours.
            Unwritable: Something in this batch can never be written; others can.
            StoreError: It cannot be written for now; it may be tried again.
        """

    def letters(self, after: int, most: int) -> list[Letter]:
        """Return dead letters with a row over `after`, in order, without their payloads.

        They are at most so many, and fewer where texts are long; none: there are no more. What
        cannot be read is left out, as by `scan`.
        """

    def letter(self, row: int) -> Letter | None:
        """Return the dead letter of a row, with its payload; None: there is none."""

    def tick(self, now: int) -> None:
        """Say that the host lives; called once a second with its time.

        Raises:
            StoreGone: The file or the lock is no more ours: nothing may be written.
        """

    def size(self) -> int:
        """Return its bytes on disk."""

    def backup(self, path: str) -> None:
        """Copy all that was committed to a new file, whole."""

    def hand_over(self) -> Any:
        """Return what a worker process is given to hold, so that it holds the lock, too.

        It is pickled while a process is spawned; None: there is nothing to hold.
        """

    def close(self, clean: bool) -> None:
        """Let go; with `clean` note that nothing was under way."""


class Unwritable(StoreError):
    """A batch is refused for what is in it, and not for the state of the file; see the cause."""


class StoreGone(StoreError):
    """The file or the lock is no more this host's: nothing may be written any more."""
