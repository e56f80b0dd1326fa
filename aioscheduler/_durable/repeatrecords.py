"""The words of what repeats, as the file has it."""

from __future__ import annotations

from typing import NamedTuple


class RepeatRow(NamedTuple):
    """What repeats, in the file.

    Attributes:
        id: Its id, which no other repeat of this file has.
        text: The text of its rule.
        terms: What was asked for, the rule included if it can be kept.
        function: The number of its function.
        payload: Of the arguments of its runs.
        key: That of `repeat`.
        options: As of `Row`.
        next: Its next nominal time, if it has one.
        last: The last nominal time for which a run was put.
        ran: How many were.
        skipped: How many nominal times were left out.
        paused: Whether it stands still.
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
    """How far a repeat of the file is; its fields are the last of `RepeatRow`, and its id."""

    id: str
    next: int | None
    last: int | None
    ran: int
    skipped: int
    paused: bool
    reason: str | None


class RepeatEnd(NamedTuple):
    """A repeat of the file that is no more."""

    id: str


RepeatChange = RepeatRow | RepeatProgress | RepeatEnd
