"""The types of a store: a task in it, a batch that is written at once, and the store itself.

    Keeper ─► Group ─► Batch ─► Store.commit        one transaction
    Store.open ─► Opening                           at the start of a host
    Store.read ─► Page of Rows                      tasks due soon, part by part
    Store.find, Store.scan, Store.scan_ids ─► Rows  tasks by id, number or key
    Store.letters ─► Letter …                       tasks that ended as dead letters

A store is used by one thread, the writer's; only `path` and `hand_over` are for others. It does not
interpret payloads, keys or options. All times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Any, NamedTuple, Protocol

from ..errors import StoreError
from .repeatrecords import RepeatChange, RepeatRow

BUCKET_SHIFT = 42
"""A task's bucket is `due >> BUCKET_SHIFT`: 73 minutes, which writes the fewest bytes per put."""


Position = tuple[int, int]
"""Due time and row: the order in which tasks are read."""

FIRST: Position = (-(1 << 63), -(1 << 63))
LAST: Position = ((1 << 63) - 1, (1 << 63) - 1)
"""Before and behind all tasks."""


def order_of_id(id_: str) -> tuple[bool, bytes]:
    """Return the sort key of an id in `Store.scan_ids`: ids with lone surrogates come last."""
    try:
        return False, id_.encode()
    except UnicodeEncodeError:
        return True, id_.encode("utf-8", "surrogatepass")


class Begun(IntEnum):
    """What the file says of a task's start (column `state`)."""

    NO = 0
    YES = 1  # it may have begun: the death of its host counts as a loss
    ONCE = 2  # the same, for a task that must not begin a second time (`on_loss="fail"`)


class Reason(Enum):
    """Why a task is a dead letter."""

    FAILED = "failed"  # its last attempt has failed
    UNREADABLE = "unreadable"  # its arguments could not be read, or its module not imported
    UNKNOWN = "unknown"  # no function of its name is registered
    LOST = "lost"  # it may have begun and must not again, or was lost three times in a row
    TOO_LATE = "too_late"  # its `max_lateness` had passed


class Function(NamedTuple):
    """A durable function, as the file knows it.

    Attributes:
        number: Its number, by which tasks name it; never reused.
        name: The name given to `@durable`.
        qualname: The last known `module:qualname`.
        once: Whether its tasks must not begin a second time, as last known.
    """

    number: int
    name: str
    qualname: str
    once: bool


class Row(NamedTuple):
    """A task in the file.

    Attributes:
        row: Its number, which no other task of this file has or had.
        due: When it starts; 0 in a queue.
        function: The number of its function.
        payload: Its encoded arguments; always bytes, the one type that SQLite returns unchanged.
        key: The `key` of `schedule`.
        id: The `id` of `schedule`.
        options: Its encoded options and context; None: it has none.
        begun: Whether it may have begun.
        attempt: The number of its next attempt, from 1.
        failed: How many attempts have failed.
        losses: How many times in a row its worker or host has died with it.
        given: The due time it was given, if `due` is that of a further attempt.
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
        """Its bucket in the file."""
        return self.due >> BUCKET_SHIFT

    @property
    def position(self) -> Position:
        """Its position in the order in which tasks are read."""
        return self.due, self.row

    @property
    def is_plain(self) -> bool:
        """Whether it has only a function, a payload and a due time, as most tasks."""
        return self[4:] == PLAIN


PLAIN = (None, None, None, Begun.NO, 1, 0, 0, None)
"""The last columns of most rows, from the key on."""


class Update(NamedTuple):
    """A change of a task in the file: all of these fields are written.

    Attributes:
        bucket: The bucket it is in now.
        row: Its number.
        due: As in `Row`, like the fields below; the new bucket follows from it.
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
        bucket: The bucket it is in when this is written.
        row: Its number, which the letter keeps.
        attempt: How many times it was started.
        reason: Why.
        text: The details, usually a traceback.
        at: When.
    """

    bucket: int
    row: int
    attempt: int
    reason: Reason
    text: str
    at: int


def headline_of(text: str) -> str:
    """Return the line of a traceback that names its error, without frames and notes."""
    lines = text.rstrip().split("\n")
    frames = [number for number, line in enumerate(lines[:-1]) if line.startswith("  ")]
    return lines[frames[-1] + 1 if frames else -1]


class Letter(NamedTuple):
    """A dead letter in the file.

    Attributes:
        row: The number of its task.
        due: When that was due.
        function: The number of its function.
        name: The name of that, as given to `@durable`.
        payload: The encoded arguments; None in a page of letters, as they may be large.
        key: The `key` of `schedule`.
        id: The `id` of `schedule`.
        options: As in `Row`.
        attempt: How many times it was started.
        reason: Why it is a dead letter.
        text: The details.
        at: When it became one.
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
    """The changes of one transaction, written in this order.

    Attributes:
        functions: Functions that are new, or whose qualname or `once` has changed; by number.
        strikes: Bucket and row of tasks to delete.
        updates: Changes of tasks in the file.
        puts: New tasks.
        burials: Tasks that become dead letters, in the file or among the puts.
        discards: Numbers of dead letters to delete.
        requeues: Dead letters replaced by tasks: the numbers of letter and task. If the task cannot
            be put, the letter stays.
        repeats: Changes of repeats, in the order in which they were made.
        next_row: No number from this one on was given to a task when the batch was made.
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
    """The state of a store as it is opened.

    Attributes:
        identity: 128 random bits, which never change.
        next_row: The next row number: none from here on was ever given.
        functions: All its functions.
        tasks: How many tasks it has.
        letters: How many dead letters it has.
        clean: Whether the last host closed it with nothing under way.
        heartbeat: When the last host was last known to be alive; 0 if there was none.
        repeats: All its repeats.
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
    """A run of consecutive tasks.

    Attributes:
        rows: The tasks, in order of due time and row.
        reached: The file has no others from where the read began up to this position.
        behind: No task behind it is due earlier than this; None: there is none behind it.
    """

    rows: list[Row]
    reached: Position
    behind: int | None


class Store(Protocol):
    """The storage of durable tasks. Every call may take long, and raises only StoreError."""

    @property
    def path(self) -> str:
        """Its name in messages."""

    def open(self) -> Opening:
        """Take the lock, make or check the file, and note that a host has it (not clean).

        Raises:
            StoreLocked: Another host has it and has not released it in time.
            StoreError: It cannot be used; it is unchanged, and the lock is free.
        """

    def read(self, after: Position, until: int, most: int) -> Page:
        """Read the tasks behind a position that are due at `until` at the latest.

        They are about `most` at most, and fewer if payloads are large. Tasks that cannot be read
        are left out, and noted in `complaint`.
        """

    def find(self, ids: Sequence[str], rows: Sequence[tuple[int, int]]) -> list[Row]:
        """Return the tasks, if any, that have one of these ids or row numbers.

        Args:
            ids: Ids.
            rows: Due time, as last known, and number: the bucket of that time is searched first,
                and then each of the others.
        """

    def scan(self, after: tuple[int, int], most: int) -> list[Row]:
        """Return tasks in order of bucket and row, behind such a key; an empty list at the end.

        Tasks that cannot be read are left out, and noted in `complaint`.

        Raises:
            StoreError: Nothing can be read.
        """

    def scan_ids(self, prefix: str, after: str | None, most: int) -> list[Row]:
        """Return tasks whose ids begin with a prefix, behind the id `after`, by `order_of_id`.

        Tasks that cannot be read are left out, as by `scan`.

        Raises:
            StoreError: Nothing can be read, or the index of ids cannot.
        """

    @property
    def complaint(self) -> str:
        """What is wrong with the file, though it can be used; usually empty."""

    def commit(self, batch: Batch) -> None:
        """Write a batch: all of it is on disk when this returns, and nothing if it raises.

        Raises:
            StoreGone: The file or the lock is no longer ours.
            Unwritable: Something in this batch can never be written; other batches can.
            StoreError: It cannot be written now, and may be tried again.
        """

    def letters(self, after: int, most: int) -> list[Letter]:
        """Return dead letters with a row over `after`, in order, without their payloads.

        They are `most` at most, and fewer if texts are long; an empty list at the end. Letters that
        cannot be read are left out, as by `scan`.
        """

    def letter(self, row: int) -> Letter | None:
        """Return a dead letter, by its number, with its payload; None: there is none."""

    def tick(self, now: int) -> None:
        """Note that the host is alive; called once a second with the present time.

        Raises:
            StoreGone: The file or the lock is no longer ours: nothing may be written.
        """

    def size(self) -> int:
        """Return its size on disk in bytes."""

    def backup(self, path: str) -> None:
        """Copy all that was committed to a new file."""

    def hand_over(self) -> Any:
        """Return an object by which a worker process holds the lock, too.

        It is pickled while a process is spawned; None: there is nothing to hold.
        """

    def close(self, clean: bool) -> None:
        """Release it; with `clean` note that nothing was under way."""


class Unwritable(StoreError):
    """A batch is refused for its contents, not for the state of the file; see the cause."""


class StoreGone(StoreError):
    """The file or the lock is no longer this host's: nothing more may be written."""
