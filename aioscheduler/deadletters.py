"""Durable tasks that cannot go on: kept in the store with their reasons, in nobody's way.

    async for letter in manager.dead_letters(reason="failed"):
        print(letter.name, letter.text)
        await manager.requeue(letter)

Nothing is deleted that was accepted: what cannot run is a dead letter until it is put back
(`Manager.requeue`) or dropped (`Manager.discard`). The word is that of message queues.
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
        name: Of its function, as `@durable` has it.
        id: The `id` that it was given, if it was.
        due: When it was to start, in aware UTC; in a queue the beginning of 1970.
        attempts: How many times it was started.
        reason: "failed" (its last attempt has), "unreadable" (its arguments or its module could not
            be read, or the letter itself), "unknown" (no function of its name is registered),
            "lost" (its worker or host died while it ran, and it is not to start again) or
            "too_late" (its `max_lateness` had passed).
        text: More about that; a traceback, as a rule.
        at: Since when it is one, in aware UTC.
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
        """The line of `text` that says what went wrong: type and message of an exception."""
        return headline_of(self.text)


def of_letter(letter: Letter) -> DeadLetter:
    """Return what users are given of a letter."""
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
    """Read which letters are wanted.

    Raises:
        TypeError: It is no str.
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
    """Read how many letters are wanted.

    Raises:
        TypeError: It is no int.
        ValueError: It is less than 0.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
        raise TypeError(f"limit is an int, not {type(limit).__name__}")
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be 0 or more, not {limit}")
    return limit


def read_before(before: datetime | None) -> int | None:
    """Read until when letters are meant, in nanoseconds since the epoch.

    Raises:
        TypeError: It is no aware datetime.
        ValueError: It has a time zone that fails, or has no offset.
    """
    if before is None:
        return None
    if not isinstance(before, datetime) or before.tzinfo is None:
        raise TypeError(f"before is an aware datetime, such as datetime.now(UTC), not {before!r}")
    # A difference, for in UTC the first and last days of the calendar may be none. Unbound, as
    # subclasses answer differently.
    try:
        span: timedelta = datetime.__sub__(before, _EPOCH)
    except Exception as error:
        raise ValueError(f"before has a time zone that gives no offset: {error!r}") from error
    return span // timedelta(microseconds=1) * 1000


def row_of(letter: DeadLetter | int) -> int:
    """Return the row that is meant.

    Raises:
        TypeError: It is neither a letter nor a row.
    """
    row = letter.row if isinstance(letter, DeadLetter) else letter
    if not isinstance(row, int) or isinstance(row, bool):
        raise TypeError(f"a DeadLetter or its row is needed, not {type(row).__name__}")
    return row


async def find_letter(keeper: Keeper, letter: DeadLetter | int) -> Letter:
    """Return a letter of the store.

    Raises:
        UnknownTask: There is none such any more.
        TypeError: It is neither a letter nor a row.
        StoreError: The store cannot be read.
    """
    row = row_of(letter)
    found = await keeper.letters.find(row)
    if found is None:
        raise UnknownTask(f"there is no dead letter {row}; it was requeued or discarded, perhaps")
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
    """Drop dead letters; return how many.

    Raises:
        UnknownTask: There is no such letter.
        TypeError: It is neither a letter nor a row.
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
