from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from aioscheduler._scheduling.order import Order, due_time
from aioscheduler._scheduling.queues import FifoQueue, LifoQueue
from aioscheduler._scheduling.timers import TimerQueue


def test_each_order_has_its_queue() -> None:
    kinds = {order: type(order.make_queue(())) for order in Order}
    assert kinds == {Order.TIMED: TimerQueue, Order.FIFO: FifoQueue, Order.LIFO: LifoQueue}
    assert [order.concurrency for order in Order] == [None, 1, 1]


def test_what_no_time_means() -> None:
    assert due_time(Order.TIMED, None, 7, True) == 7
    assert due_time(Order.TIMED, timedelta(0), 7, True) == 7
    assert due_time(Order.FIFO, None, 7, True) == 0
    with pytest.raises(TypeError, match="leave out when"):
        due_time(Order.LIFO, datetime.now(UTC), 7, True)
