"""What a manager is told at its making: how it is read, and what is refused.

    Manager(8, workers=2, initializer=connect) ─ read_settings ─► Settings ─► Fleet

What its tasks are told is in `options`; how many schedulers come of it, in `layout`. Nothing is
made here of what was said: that is the fleet's.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict

from .._scheduling.order import Order
from .layout import check_count, check_flag, lay_out


class ManagerOptions(TypedDict, total=False):
    """What `Manager` takes by keyword, whatever its `cls`; for checkers."""

    workers: int | None
    initializer: Callable[..., Any] | None
    initargs: Sequence[Any]
    loop_initializer: Callable[[], Any] | None
    on_worker_loss: Literal["fail", "rerun"]
    max_restarts: tuple[int, float]
    monitor: bool
    max_running: int | None


class Settings(NamedTuple):
    """What was said, read.

    Attributes:
        order: Of the schedulers.
        prefer_utc: What a naive datetime means.
        layout: How many schedulers each worker has.
        local: Whether that is this process.
        boot: The initializer and its arguments, if there is one.
        loop_initializer: Makes the event loop of each worker, if it is not asyncio that does.
        rerun: Whether tasks that had started run again when their worker has died.
        max_restarts: How many replacements, in how many seconds.
        monitor: Whether others may watch.
        max_running: How many tasks may run at a time on each scheduler; None: as its order says.
    """

    order: Order
    prefer_utc: bool
    layout: list[int]
    local: bool
    boot: tuple[Callable[..., Any], tuple[Any, ...]] | None
    loop_initializer: Callable[[], Any] | None
    rerun: bool
    max_restarts: tuple[int, float]
    monitor: bool
    max_running: int | None


def read_settings(
    order: Order, prefer_utc: bool, schedulers: int | None, options: ManagerOptions
) -> Settings:
    """Read what a manager was told; the words are those of `Manager`.

    Args:
        order: Of its `cls`.
        prefer_utc: What was said to its `cls`.
        schedulers: How many in all, if the user said so.
        options: The rest, each of them.

    Raises:
        TypeError: Something is of a wrong type, or the initializer is a generator function.
        ValueError: A count or a choice is out of range, or two things contradict each other.
    """
    layout, local = lay_out(order, schedulers, options["workers"])
    max_restarts = _read_restarts(options["max_restarts"])
    on_worker_loss, monitor = options["on_worker_loss"], options["monitor"]
    if on_worker_loss not in ("fail", "rerun"):
        raise ValueError(f'on_worker_loss must be "fail" or "rerun", not {on_worker_loss!r}')
    check_flag("monitor", monitor)
    max_running = options["max_running"]
    if max_running is not None:
        check_count("max_running", max_running, 1)
        if order is not Order.TIMED:
            raise ValueError("a queue runs one task at a time: leave out max_running")
    initializer, initargs = options["initializer"], options["initargs"]
    if initializer is not None:
        _check_initializer(initializer)
    if isinstance(initargs, str | bytes) or not isinstance(initargs, Iterable):
        raise TypeError(f"initargs must be a tuple, such as ({initargs!r},), not {initargs!r}")
    loop_initializer = options["loop_initializer"]
    if loop_initializer is not None and not callable(loop_initializer):
        raise TypeError(
            f"loop_initializer is a function that makes a loop, not {loop_initializer!r}; "
            "leave out the ()"
        )
    if local and loop_initializer is not None:
        raise ValueError("loop_initializer is for worker processes; workers=0 has none")
    return Settings(
        order,
        prefer_utc,
        layout,
        local,
        None if initializer is None else (initializer, tuple(initargs)),
        loop_initializer,
        on_worker_loss == "rerun",
        max_restarts,
        monitor,
        max_running,
    )


def _check_initializer(initializer: object) -> None:
    if not callable(initializer):
        raise TypeError(f"initializer must be a function, not {initializer!r}")
    function: Any = initializer
    while isinstance(function, partial):
        function = function.func
    if getattr(function, "__globals__", None) is vars(contextlib):
        function = inspect.unwrap(function)  # @contextmanager was around it
    for body in (function, type(function).__call__):
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(
                f"initializer must not contain a yield, as {initializer!r} does: nothing of it "
                "would run; move what comes before the yield to a function of its own"
            )


def _read_restarts(max_restarts: tuple[int, float]) -> tuple[int, float]:
    if not isinstance(max_restarts, tuple | list) or len(max_restarts) != 2:
        raise TypeError(f"max_restarts must be (how many, in seconds), not {max_restarts!r}")
    most, period = max_restarts
    check_count("max_restarts[0]", most, 0)
    if not isinstance(period, int | float) or not 0 < period < math.inf:
        raise ValueError(f"max_restarts[1] must be seconds, more than 0, not {period!r}")
    return most, period
