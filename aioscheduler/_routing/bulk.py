"""Many calls of one function: their payloads, and their due times.

map(work, items, whens) ─┬─► take_some: as many payloads as a link takes at a time
                         └─► read_dues: one time for all, or one for each
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from .._scheduling.order import Order, due_time
from .._transport.wire import FRAME_BYTES
from ..errors import NotDurable, NotShippable, TaskLimitReached
from .link import Shipper

Whens = datetime | timedelta | Sequence[datetime | timedelta | None] | None
"""One time for all of a batch, or one for each."""


def read_dues(
    order: Order, when: Whens, count: int, cut: bool, now: int, prefer_utc: bool
) -> int | list[int]:
    """Return the due time of all, or those of each.

    Args:
        order: The order of the schedulers.
        when: What the user gave.
        count: The number of items.
        cut: Whether `when` may have more times, which are not read.
        now: The present in nanoseconds since the epoch.
        prefer_utc: What a naive datetime means.

    Raises:
        ValueError: A time has passed, or there are not as many times as items.
        TypeError: One is not a time, or a queue was given one.
    """
    if when is None or isinstance(when, datetime | timedelta):
        return due_time(order, when, now, prefer_utc)
    times = list(islice(when, count if cut else count + 1))
    if len(times) != count:
        has = f"more than {count}" if len(times) > count else len(times)
        raise ValueError(f"when has {has} times for {count} items; give one each")
    dues: list[int] = []
    try:
        for each in times:
            dues.append(due_time(order, each, now, prefer_utc))  # noqa: PERF401
    except (ValueError, TypeError) as refusal:
        raise name_item(len(dues), refusal) from refusal
    return dues


def take_some(shipper: Shipper, calls: list[tuple[Any, ...]], start: int, room: int) -> list[Any]:
    """Turn arguments into payloads: at most `room`, and no more than fit a frame.

    Raises:
        NotShippable: One of them cannot travel; it is named.
    """
    plain = shipper.take_plain(calls[start : start + room])
    if plain is not None:
        return plain
    payloads: list[Any] = []
    size = 0
    try:
        for args in calls[start : start + room]:
            taken = shipper.take_arguments(args)
            payloads.append(taken)
            size += len(taken) if isinstance(taken, bytes) else 0
            if size > FRAME_BYTES:
                break
    except (ValueError, TypeError) as refusal:
        raise name_item(start + len(payloads), refusal) from refusal
    return payloads


def name_item(index: int, refusal: Exception) -> Exception:
    """Return a refusal that names the item of a batch it is for."""
    kinds = (NotDurable, NotShippable, TaskLimitReached, ValueError, TypeError)
    kind = next(kind for kind in kinds if isinstance(refusal, kind))
    return kind(f"item {index}: {refusal}")
