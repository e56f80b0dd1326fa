"""Durable tasks that cannot go on: kept in the store with their reasons, blocking nothing.

    async for letter in manager.dead_letters(reason="failed"):
        print(letter.name, letter.text)
        await manager.requeue(letter)

No accepted task is deleted: one that cannot run is a dead letter until it is put back
(`Manager.requeue`) or deleted (`Manager.discard`). The term is that of message queues.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from ._durable.records import Letter, Reason, headline_of
from ._scheduling.clock import to_datetime
from .errors import UnknownTask

if TYPE_CHECKING:
    from ._routing.keeper import Keeper

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeadLetter(NamedTuple):
    """A durable task that cannot go on.

    Attributes:
        row: Its number in the store.
        name: The name of its function, as given to `@durable`.
        id: Its `id`; None if it has none.
        due: Its due time, in aware UTC; in a queue the beginning of 1970.
        attempts: How many times it was started.
        reason: "failed" (its last attempt failed), "unreadable" (its arguments or its module could
            not be read, or the letter itself), "unknown" (no function of its name is registered),
            "lost" (its worker or host died while it ran, and it must not start again) or
            "too_late" (its `max_lateness` had passed).
        text: Details of the reason; usually a traceback.
        at: When it became a dead letter, in aware UTC.
    """

    row: int
    name: str
    id: str | None
    due: datetime
    attempts: int
    reason: str
    text: str
    at: datetime

    @property
    def error(self) -> str:
        """The line of `text` with the error: the type and message of an exception."""
        return headline_of(self.text)


def of_letter(letter: Letter) -> DeadLetter:
    """Return a letter of the store in its public form."""
    return DeadLetter(
        letter.row,
        letter.name,
        letter.id,
        to_datetime(letter.due),
        letter.attempt,
        letter.reason.value,
        letter.text,
        to_datetime(letter.at),
    )


def read_reason(reason: str | None) -> Reason | None:
    """Read the `reason` argument; None is any reason.

    Raises:
        TypeError: The reason is no str.
        ValueError: There is no such reason.
    """
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise TypeError(f"reason is a str, not {type(reason).__name__}")
    try:
        return Reason(reason)
    except ValueError:
        known = ", ".join(repr(each.value) for each in Reason)
        raise ValueError(f"there is no reason {reason!r}; there are {known}") from None


def read_limit(limit: int | None) -> int | None:
    """Read the `limit` argument; None is no limit.

    Raises:
        TypeError: The limit is no int.
        ValueError: The limit is less than 0.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise TypeError(f"limit is an int, not {type(limit).__name__}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")
    return limit


def read_before(before: datetime | None) -> int | None:
    """Read the `before` argument; return nanoseconds since the epoch.

    Raises:
        TypeError: It is no aware datetime.
        ValueError: Its time zone raises an error, or returns no offset.
    """
    if before is None:
        return None
    if not isinstance(before, datetime) or before.tzinfo is None:
        raise TypeError(f"before is an aware datetime, such as datetime.now(UTC), not {before!r}")
    # A difference, because the first and last days of the calendar may be out of range in UTC.
    # Unbound, because subclasses may override the operator.
    try:
        span: timedelta = datetime.__sub__(before, _EPOCH)
    except Exception as error:
        raise ValueError(f"before has a time zone that returns no offset: {error!r}") from error
    return span // timedelta(microseconds=1) * 1000


def row_of(letter: DeadLetter | int) -> int:
    """Return the row of a letter, or the row itself.

    Raises:
        TypeError: `letter` is neither a letter nor a row.
    """
    row = letter.row if isinstance(letter, DeadLetter) else letter
    if not isinstance(row, int) or isinstance(row, bool):
        raise TypeError(f"a DeadLetter or its row is needed, not {type(row).__name__}")
    return row


async def find_letter(keeper: Keeper, letter: DeadLetter | int) -> Letter:
    """Return a letter of the store.

    Raises:
        UnknownTask: The letter no longer exists.
        TypeError: `letter` is neither a letter nor a row.
        StoreError: The store cannot be read.
    """
    row = row_of(letter)
    found = await keeper.letters.find(row)
    if found is None:
        raise UnknownTask(f"there is no dead letter {row}; it may have been requeued or discarded")
    return found


async def list_letters(
    keeper: Keeper, reason: Reason | None, limit: int | None
) -> AsyncIterator[DeadLetter]:
    """Yield dead letters, the oldest row first."""
    async for letter in keeper.letters.read(reason, limit):
        yield of_letter(letter)


async def discard_letters(
    keeper: Keeper,
    letter: DeadLetter | int | None,
    reason: Reason | None,
    before: int | None,
) -> int:
    """Delete dead letters; return how many.

    Raises:
        UnknownTask: The letter no longer exists.
        TypeError: `letter` is neither a letter nor a row.
        StoreError: The store cannot be read or written.
    """
    count = 0
    if letter is not None:
        found = await find_letter(keeper, letter)
        if reason in (None, found.reason) and (before is None or found.at < before):
            keeper.letters.drop(found.row)
            count = 1
    else:
        async for each in keeper.letters.read(reason, None):
            if before is None or each.at < before:
                keeper.letters.drop(each.row)
                count += 1
    await keeper.stored(None)
    return count
