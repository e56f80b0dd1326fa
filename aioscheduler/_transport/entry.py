"""What was sent of a task, and what of it changes when it is to start once more. Pure."""

from __future__ import annotations

from typing import NamedTuple

from .wire import Payload, Record, make_record, read_record


class Entry(NamedTuple):
    """What was sent of a task, beside its number; see `wire.Kind.SCHEDULE`."""

    scheduler: int
    due: int
    function: int | bytes
    record: Record
    payload: Payload

    def rerun(self) -> Entry:
        """Return it for another start, because its worker has died with it."""
        more = read_record(self.record)
        return self._replace(record=make_record(more._replace(attempt=more.attempt + 1)))

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
