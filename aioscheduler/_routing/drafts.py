"""A durable task before a link has it: what users call, or a dead letter, made fit for the file.

schedule(remind(7))    ─► draft        ┐
map(remind, users)     ─► draft_many   ├─► Draft ─► a call for the link ─► a row of the file
a task of a worker's   ─► draft_inside │
a dead letter          ─► draft_again  ┘
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
"""Of a payload: a row of SQLite takes a billion."""


MOST_NAME = 1 << 20
"""Characters of a key or an id: what is done with them is done in the loop."""


class Draft(NamedTuple):
    """A durable task that is about to be scheduled.

    Attributes:
        stored: What there is to do.
        key: That of `schedule`.
        id: That of `schedule`.
    """

    stored: Stored
    key: str | bytes | int | None = None
    id: str | None = None


class Drafts:
    """Makes drafts, and the rows that become of them.

    Args:
        shipper: Makes payloads.
        functions: Of the file.
        notes: Writes what goes with tasks.
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
        """Take a coroutine apart, which is closed then.

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
        """Return what holds of many calls; each has a payload of its own (`take_some`).

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
        """Turn arguments into payloads: at most `room`, and as many as fit a frame.

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
        """Return what a task of a worker schedules.

        Raises:
            Exception: No worker of ours has asked for it.
        """
        assert asked.durable is not None
        assert isinstance(asked.payload, bytes)
        name, qualname, once, label = asked.durable
        function = registry.find(name) or Function(0, name, qualname, once)
        confirmed = confirmed_of(function, asked.id)
        stored = Stored(function, asked.payload, label, asked.captured, confirmed)
        return Draft(stored, asked.key, asked.id)

    def function(self, number: int) -> Durable | Function:
        """Return what is registered under the name of a function of the file, or what it knows.

        Raises:
            LookupError: It has no function of this number.
        """
        found = self._functions.find(number)
        if found is None:
            raise LookupError(f"the file has no function of the number {number}")
        return found

    def draft_again(self, letter: Letter) -> Draft:
        """Return the task of a dead letter, read with its payload, to be scheduled anew."""
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
        """Return a task as it stands in the file, under a number."""
        stored = draft.stored
        note = self._notes.write(stored.label, stored.captured)
        function = self._functions.number(stored.function)
        row = Row(number, due, function, stored.payload, draft.key, draft.id, note)
        return row if stored.given is None else row._replace(given=stored.given)


def confirmed_of(function: Durable | Function, id_: str | None) -> int:
    """Return whether a task of a function begins on record alone, as of `Stored`."""
    return wire.FEW if function.once else int(id_ is not None)


def _check_size(payload: bytes) -> bytes:
    if len(payload) > MOST_BYTES:
        raise NotDurable(
            f"the arguments of a durable task take {len(payload):,} bytes, and a store takes "
            f"{MOST_BYTES:,} of each: write them to a file, and give the task its path"
        )
    return payload


def _check_name(kind: str, name: str | bytes | int | None) -> None:
    if isinstance(name, str | bytes) and len(name) > MOST_NAME:
        raise NotDurable(
            f"the {kind} of a durable task has {len(name):,} characters, and a store takes "
            f"{MOST_NAME:,}: take a hash of it"
        )


def _plain_key(key: str | bytes | int | None) -> str | bytes | int | None:
    """Return a key without what a class of the user's has made of it, which may raise anywhere."""
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes):
        return b"".join((key,))
    return None if key is None else int.__int__(key)
