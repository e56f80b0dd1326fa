"""The types of repeats in the file."""

from __future__ import annotations

from typing import NamedTuple


class RepeatRow(NamedTuple):
    """A repeat in the file.

    Attributes:
        id: Its id, which no other repeat of this file has.
        text: The text of its rule.
        terms: Its encoded terms, with the rule if that can be stored.
        function: The number of its function.
        payload: The encoded arguments of its runs.
        key: The `key` of `repeat`.
        options: As in `Row`.
        next: Its next nominal time, if it has one.
        last: The last nominal time for which a run was put.
        ran: How many runs were put.
        skipped: How many nominal times were skipped.
        paused: Whether it is paused.
        reason: Why, if nobody has asked for that.
    """

    id: str
    text: str
    terms: bytes
    function: int
    payload: bytes
    key: str | bytes | int | None = None
    options: bytes | None = None
    next: int | None = None
    last: int | None = None
    ran: int = 0
    skipped: int = 0
    paused: bool = False
    reason: str | None = None


class RepeatProgress(NamedTuple):
    """The progress of a repeat in the file: its id, and the last fields of `RepeatRow`."""

    id: str
    next: int | None
    last: int | None
    ran: int
    skipped: int
    paused: bool
    reason: str | None


class RepeatEnd(NamedTuple):
    """The end of a repeat, which is deleted from the file."""

    id: str


RepeatChange = RepeatRow | RepeatProgress | RepeatEnd
