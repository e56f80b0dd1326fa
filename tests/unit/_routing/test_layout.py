from __future__ import annotations

import sys
from typing import Any

import pytest

from aioscheduler._routing import layout
from aioscheduler._routing.layout import check_count, lay_out
from aioscheduler._scheduling.order import Order


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "usable_cores", lambda: 3)


@pytest.mark.parametrize(
    ("order", "schedulers", "workers", "expected"),
    [
        (Order.TIMED, None, None, [4, 4, 4]),
        (Order.TIMED, None, 2, [4, 4]),
        (Order.TIMED, 5, None, [2, 2, 1]),
        (Order.TIMED, 2, None, [1, 1]),
        (Order.TIMED, 5, 2, [3, 2]),
        (Order.FIFO, None, None, [1]),
        (Order.LIFO, None, 2, [1, 1]),
        (Order.FIFO, 5, None, [2, 2, 1]),
    ],
)
def test_defaults(
    order: Order, schedulers: int | None, workers: int | None, expected: list[int]
) -> None:
    assert lay_out(order, schedulers, workers) == (expected, False)


@pytest.mark.parametrize(
    ("order", "schedulers", "expected"),
    [(Order.TIMED, None, [4]), (Order.FIFO, None, [1]), (Order.TIMED, 7, [7])],
)
def test_no_processes(order: Order, schedulers: int | None, expected: list[int]) -> None:
    assert lay_out(order, schedulers, 0) == (expected, True)


def test_more_workers_than_schedulers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers=3 is more than schedulers=2"):
        lay_out(Order.TIMED, 2, 3)


def test_windows_has_no_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert lay_out(Order.TIMED, None, None) == ([4], True)
    with pytest.raises(ValueError, match="Windows"):
        lay_out(Order.TIMED, None, 2)


@pytest.mark.parametrize("value", [1.0, "1", None, True, [1]])
def test_a_count_is_an_int(value: Any) -> None:
    with pytest.raises(TypeError, match="workers must be an int"):
        check_count("workers", value, 0)


def test_a_count_is_large_enough() -> None:
    check_count("workers", 0, 0)
    with pytest.raises(ValueError, match="workers must be at least 0, not -1"):
        check_count("workers", -1, 0)
