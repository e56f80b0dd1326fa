"""A durable task before it has a link: a user's call, or a dead letter, in a form for the file.

schedule(remind(7)) ─► draft        ┐
map(remind, users)  ─► draft_many   ├─► Draft ─► a call for the link ─► a row of the file
a task in a worker  ─► draft_inside │
a dead letter       ─► draft_again  ┘
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import registry
from .._durable.records import Function, Letter, Row
from .._shipping.hostshipping import HostShipper
from .._shipping.propagation import Captured
from .._transport import wire
from .._transport.entry import InsideRequest
from ..errors import NotDurable
from ..registry import Durable
from .bulk import name_item
from .functions import Functions
from .storedcalls import Notes, Stored

MOST_BYTES = 512 << 20
"""The limit of a payload: a row of SQLite holds a billion bytes."""


MOST_NAME = 1 << 20
"""Characters of a key or an id, which are processed in the loop."""


class Draft(NamedTuple):
    """A durable task that is about to be scheduled.

    Attributes:
        stored: The stored call.
        key: As given to `schedule`.
        id: As given to `schedule`.
    """

    stored: Stored
    key: str | bytes | int | None = None
    id: str | None = None


class Drafts:
    """Makes drafts, and rows of them.

    Args:
        shipper: Makes payloads.
        functions: The functions of the file.
        notes: Reads and writes the notes of tasks.
    """

    def __init__(self, shipper: HostShipper, functions: Functions, notes: Notes) -> None:
        self._shipper = shipper
        self._functions = functions
        self._notes = notes

    def draft(
        self,
        coro: Any,
        durable: Durable,
        label: str | None,
        captured: Captured | None,
        key: str | bytes | int | None,
        id_: str | None,
    ) -> Draft:
        """Take a coroutine apart, and close it.

        Raises:
            NotDurable: The next host could not read it again.
        """
        _check_name("key", key)
        _check_name("id", id_)
        values = self._notes.take(captured)
        payload = _check_size(self._shipper.take_durable(coro, durable.name))
        confirmed = confirmed_of(durable, id_)
        return Draft(Stored(durable, payload, label, values, confirmed), _plain_key(key), id_)

    def draft_many(
        self,
        durable: Durable,
        label: str | None,
        captured: Captured | None,
        key: str | bytes | int | None,
    ) -> Draft:
        """Return what many calls have in common; each has its own payload (`take_some`).

        Raises:
            NotDurable: A captured value could not be read by the next host.
        """
        _check_name("key", key)
        values = self._notes.take(captured)
        stored = Stored(durable, b"", label, values, confirmed_of(durable, None))
        return Draft(stored, _plain_key(key))

    def take_some(
        self, draft: Draft, calls: list[tuple[Any, ...]], start: int, room: int
    ) -> list[bytes]:
        """Turn arguments into payloads: at most `room`, and no more than fit a frame.

        Raises:
            NotDurable: One of them could not be read by the next host; it is named.
        """
        plain = self._shipper.take_durable_plain(calls[start : start + room])
        if plain is not None:
            return plain
        name = draft.stored.function.name
        payloads: list[bytes] = []
        size = 0
        try:
            for args in calls[start : start + room]:
                payloads.append(_check_size(self._shipper.take_durable_arguments(args, name)))
                size += len(payloads[-1])
                if size > wire.FRAME_BYTES:
                    break
        except (ValueError, TypeError) as refusal:
            raise name_item(start + len(payloads), refusal) from refusal
        return payloads

    def draft_inside(self, asked: InsideRequest) -> Draft:
        """Return the draft of a task that a task in a worker schedules.

        Raises:
            Exception: The request cannot be one of our workers'.
        """
        assert asked.durable is not None
        assert isinstance(asked.payload, bytes)
        name, qualname, once, label = asked.durable
        function = registry.find(name) or Function(0, name, qualname, once)
        confirmed = confirmed_of(function, asked.id)
        stored = Stored(function, asked.payload, label, asked.captured, confirmed)
        return Draft(stored, asked.key, asked.id)

    def function(self, number: int) -> Durable | Function:
        """Return the function of a number: as registered, else as the file knows it.

        Raises:
            LookupError: The file has no function with this number.
        """
        found = self._functions.find(number)
        if found is None:
            raise LookupError(f"the file has no function with the number {number}")
        return found

    def draft_again(self, letter: Letter) -> Draft:
        """Return the draft of a dead letter, read with its payload, to schedule it again."""
        assert letter.payload is not None
        function = self._functions.find(letter.function)
        assert function is not None  # the file has a name for each letter
        label, values = self._notes.read(letter.options)
        confirmed = confirmed_of(function, letter.id)
        return Draft(Stored(function, letter.payload, label, values, confirmed), *letter[5:7])

    def name(self, row: Row, function: Durable | Function | None = None) -> str:
        """Return the name of a task, as its handle shows it."""
        label, _ = self._notes.read(row.options)
        function = function or self._functions.find(row.function)
        return label or ("" if function is None else function.qualname)

    def row(self, number: int, due: int, draft: Draft) -> Row:
        """Return the row of a task in the file, given its row number."""
        stored = draft.stored
        note = self._notes.write(stored.label, stored.captured)
        function = self._functions.number(stored.function)
        row = Row(number, due, function, stored.payload, draft.key, draft.id, note)
        return row if stored.given is None else row._replace(given=stored.given)


def confirmed_of(function: Durable | Function, id_: str | None) -> int:
    """Return whether and how a task begins on record; see `Stored`."""
    return wire.FEW if function.once else int(id_ is not None)


def _check_size(payload: bytes) -> bytes:
    if len(payload) > MOST_BYTES:
        raise NotDurable(
            f"the arguments of a durable task take {len(payload):,} bytes; the limit of a store is "
            f"{MOST_BYTES:,} a task: write them to a file, and give the task its path"
        )
    return payload


def _check_name(kind: str, name: str | bytes | int | None) -> None:
    if isinstance(name, str | bytes) and len(name) > MOST_NAME:
        raise NotDurable(
            f"the {kind} of a durable task has {len(name):,} characters; the limit of a store is "
            f"{MOST_NAME:,}: use a hash of it"
        )


def _plain_key(key: str | bytes | int | None) -> str | bytes | int | None:
    """Return a key as a plain str, bytes or int: the methods of a user's subclass may raise."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return b"".join((key,))
    return None if key is None else int.__int__(key)
