"""What tools show of a file that no host has open."""

from __future__ import annotations

from typing import NamedTuple

from .records import Begun


class TaskLine(NamedTuple):
    """What a tool shows of a task; None: there is none, or what the file has is none.

    Attributes:
        row: Its number.
        name: Of its function, as `@durable` has it.
        id: That of `schedule`.
        due: When it is to start; 0 in a queue.
        attempt: How many times it has been started when it starts next.
        begun: Whether it may have begun.
    """

    row: int | None
    name: str | None
    id: str | None
    due: int | None
    attempt: int | None
    begun: Begun | None


class StoreInfo(NamedTuple):
    """What a tool shows of a file that no host has open.

    Attributes:
        path: Of it, absolute and without links.
        schema: The number of its schema.
        older: Whether that is an older one, so that the next host upgrades it.
        size: Its bytes.
        log_size: Those of the log beside it.
        clean: Whether the last host ended in order.
        lived: When that was last known to live; if that is not known, when the file was last
            written.
        had_host: Whether it is known.
    """

    path: str
    schema: int
    older: bool
    size: int
    log_size: int
    clean: bool
    lived: int
    had_host: bool
