"""The data of a task that travels, and its changes for another start. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .wire import Payload, Record, make_record, read_record


class Entry(NamedTuple):
    """The fields of a sent task, except its number; see `wire.Kind.SCHEDULE`."""

    scheduler: int
    due: int
    function: int | bytes
    record: Record
    payload: Payload

    def rerun(self, confirmed: int) -> Entry:
        """Return the entry for another start after its worker died while it ran.

        Args:
            confirmed: As in `More`, from now on; 0: as before.
        """
        more = read_record(self.record)
        confirmed = confirmed or more.confirmed
        more = more._replace(attempt=more.attempt + 1, confirmed=confirmed)
        return self._replace(record=make_record(more))

    def retry(self, due: int, timed: bool) -> Entry:
        """Return the entry for another start after a failure.

        In a queue only such an entry has a due time, which users never see: it rests at the head.
        """
        more = read_record(self.record).after_failure()
        if timed and more.given is None:
            more = more._replace(given=self.due)
        return self._replace(due=due, record=make_record(more))

    @property
    def given(self) -> int:
        """The due time that the user gave it, which retries do not change."""
        given = read_record(self.record).given
        return self.due if given is None else given

    def move(self, due: int) -> Entry:
        """Return the entry with another due time given by the user."""
        more = read_record(self.record)
        return self._replace(due=due, record=make_record(more._replace(given=None)))


ALIAS_BITS = 36
"""The bits of an alias that count up; those above them identify the process that gave it."""


class InsideRequest(NamedTuple):
    """A request of a task to schedule another one; its manager enters it as an `Entry`.

    Attributes:
        place: The number of its place, as in the placement.
        due: Its due time in nanoseconds since the epoch, 0 in a queue.
        function: The function, as encoded by the worker's catalog.
        payload: The arguments.
        lines: The numbers of the definitions that the payload names.
        options: The options, as encoded by the catalog; None if there are none.
        captured: The captured values, with the numbers of the definitions that they name.
        alias: The number that the worker gives it.
        id: The `id` it was scheduled with.
        replace: Whether it takes that id from another task.
        durable: For a task that goes to a store: name and qualname of its function, whether it must
            not begin twice, and the task's own name. The host finds function and options by it.
        key: The `key` of such a task.
    """

    place: int
    due: int
    function: Any
    payload: Payload
    lines: Sequence[int]
    options: Sequence[Any] | None
    captured: bytes | None
    alias: int
    id: str | None
    replace: bool
    durable: tuple[str, str, bool, str | None] | None = None
    key: str | bytes | int | None = None
