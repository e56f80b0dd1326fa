"""What tools show of a file that no host has open."""

from __future__ import annotations

from typing import NamedTuple

from .records import Begun


class TaskLine(NamedTuple):
    """What a tool shows of a task; a field is None if it is missing or malformed in the file.

    Attributes:
        row: Its number.
        name: The name of its function, as given to `@durable`.
        id: The `id` of `schedule`.
        due: When it starts, in nanoseconds since the epoch; 0 in a queue.
        attempt: The number of its next attempt, from 1.
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
        path: Its path, absolute and without links.
        schema: The number of its schema.
        older: Whether the schema is older than this version's, so that the next host upgrades it.
        size: Its size in bytes.
        log_size: The size in bytes of the log beside it.
        clean: Whether the last host ended in order.
        lived: When that was last known to be alive, in nanoseconds since the epoch; if that is not
            known, when the file was last written.
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
