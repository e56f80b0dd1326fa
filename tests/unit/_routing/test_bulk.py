"""Payloads and due times of many calls; refusals name the item."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aioscheduler._routing.bulk import name_item, read_dues, take_some
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler._transport.wire import FRAME_BYTES
from aioscheduler.errors import NotShippable, TaskLimitReached

NOW = 100 * SECOND


class Shipper:
    """Makes payloads of the given sizes; -1 cannot travel."""

    def take_plain(self, calls: list[tuple[Any, ...]]) -> None:
        return None

    def take_arguments(self, args: tuple[Any, ...]) -> bytes:
        if args == (-1,):
            raise NotShippable("its argument is bad")
        return bytes(args[0])


def dues(when: Any, count: int, cut: bool = False, order: Order = Order.TIMED) -> int | list[int]:
    return read_dues(order, when, count, cut, NOW, True)


def test_there_is_one_time_for_all_or_one_for_each() -> None:
    second = timedelta(seconds=1)
    assert dues(None, 3) == NOW
    assert dues(second, 3) == NOW + SECOND
    assert dues(datetime.fromtimestamp(200, UTC), 3) == 200 * SECOND
    assert dues([None, second], 2) == [NOW, NOW + SECOND]
    assert dues(None, 3, order=Order.FIFO) == 0
    assert dues([None] * 9, 2, cut=True) == [NOW, NOW]  # the others are refused elsewhere


def test_times_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 times for 2 items"):
        dues([None], 2)
    with pytest.raises(ValueError, match="more than 2 times for 2 items"):
        dues([None] * 3, 2)
    with pytest.raises(TypeError, match="item 1: "):
        dues([None, "soon"], 2)


def test_as_many_are_taken_as_fit_a_frame() -> None:
    shipper: Any = Shipper()
    calls = [(FRAME_BYTES // 3,)] * 9
    assert list(map(len, take_some(shipper, calls, 0, 9))) == [FRAME_BYTES // 3] * 4
    assert len(take_some(shipper, calls, 7, 9)) == 2
    with pytest.raises(NotShippable, match="item 3: its argument is bad"):
        take_some(shipper, [*calls[:3], (-1,)], 2, 9)


@pytest.mark.parametrize("kind", [NotShippable, TaskLimitReached, ValueError, TypeError])
def test_a_refusal_keeps_its_kind(kind: type[Exception]) -> None:
    named = name_item(7, kind("no"))
    assert type(named) is kind
    assert str(named) == "item 7: no"
