"""What is sent of a task, and what of it changes when it is to start once more. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .wire import Payload, Record, make_record, read_record


class Entry(NamedTuple):
    """What was sent of a task, beside its number; see `wire.Kind.SCHEDULE`."""

    scheduler: int
    due: int
    function: int | bytes
    record: Record
    payload: Payload

    def rerun(self, confirmed: int) -> Entry:
        """Return it for another start, because its worker has died with it.

        Args:
            confirmed: As of `More`, from now on; 0: as before.
        """
        more = read_record(self.record)
        confirmed = confirmed or more.confirmed
        more = more._replace(attempt=more.attempt + 1, confirmed=confirmed)
        return self._replace(record=make_record(more))

    def retry(self, due: int, timed: bool) -> Entry:
        """Return it for another start, because it has failed.

        In a queue no other has a due time, and none is given to users: it rests at the head.
        """
        more = read_record(self.record).after_failure()
        if timed and more.given is None:
            more = more._replace(given=self.due)
        return self._replace(due=due, record=make_record(more))

    @property
    def given(self) -> int:
        """The due time that it was given, which retries do not move."""
        given = read_record(self.record).given
        return self.due if given is None else given

    def move(self, due: int) -> Entry:
        """Return it with another due time, which it has been given."""
        more = read_record(self.record)
        return self._replace(due=due, record=make_record(more._replace(given=None)))


ALIAS_BITS = 36
"""Of the number of a task that a process gives, which counts up; above them is which process."""


class InsideRequest(NamedTuple):
    """What a task sends of another that it schedules; its manager enters it as an `Entry`.

    Attributes:
        place: As the placement numbers them.
        due: Nanoseconds since the epoch, 0 in a queue.
        function: As the catalog of the worker gives it.
        payload: Of the arguments.
        lines: Of the definitions, that the payload names.
        options: As the catalog gives them, if there are any.
        captured: The payload of what was captured for it, which says itself what it names.
        alias: The number that the worker gives it.
        id: That it is to have, if it is to have one.
        replace: Whether it takes that from another.
        durable: Of a task that a store is to have: name and qualname of its function, whether it is
            not to begin a second time, and the task's own name. The host knows function and options
            by that.
        key: That of `schedule`, of such a task.
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
