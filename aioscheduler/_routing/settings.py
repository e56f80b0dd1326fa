"""Reads and checks the arguments of a manager.

    Manager(8, workers=2, initializer=connect) ─ read_settings ─► Settings ─► Fleet

The options of tasks are in `options`, the number of schedulers in `layout`. The settings are put
into effect by the fleet.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict, cast

from .._durable.records import Store
from .._durable.sqlite import SQLiteStore
from .._scheduling.clock import read_seconds
from .._scheduling.order import Order
from .._shipping.propagation import ContextItem, Propagation, read_context
from ..options import read_text
from .layout import Engine, check_count, check_flag, lay_out, read_engine, workers_of


class ManagerOptions(TypedDict, total=False):
    """The keyword arguments of `Manager`, for any `cls`; for type checkers."""

    workers: int | None
    initializer: Callable[..., Any] | None
    initargs: Sequence[Any]
    loop_initializer: Callable[[], Any] | None
    on_worker_loss: Literal["fail", "rerun"]
    max_restarts: tuple[int, float]
    monitor: bool
    name: str | None
    max_running: int | None
    context: Sequence[ContextItem]
    max_tasks_per_worker: int | None
    max_rss_per_worker: int | None
    block_timeout: float | timedelta | None
    forward_logs: bool
    store: str | os.PathLike[str] | Store | None
    engine: Engine | None


class Settings(NamedTuple):
    """The settings of a manager.

    Attributes:
        order: The order of the schedulers.
        prefer_utc: What a naive datetime means.
        layout: How many schedulers each worker has.
        local: Whether the schedulers run in this process.
        boot: The initializer and its arguments, if there is one.
        loop_initializer: Makes the event loop of each worker; None: asyncio does.
        rerun: Whether tasks that had started run again if their worker died.
        max_restarts: How many replacements are allowed, in how many seconds.
        monitor: Whether other processes may watch.
        max_running: How many tasks may run at a time on each scheduler; None: as its order says.
        name: The manager's name, if given.
        propagation: Context values that travel with each task, if any.
        max_tasks_per_worker: Tasks after which a process is recycled; None: no limit.
        max_rss_per_worker: Resident bytes above which a process is recycled; None: no limit.
        block_timeout: Seconds that a task may block its worker's loop; None: no limit.
        forward_logs: Whether log records of workers are handled by the logging of the host.
        store: The file of its durable tasks, if there is one.
        engine: Runs the workers on other machines; None: they are on this one.
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
    name: str | None
    propagation: Propagation | None
    max_tasks_per_worker: int | None
    max_rss_per_worker: int | None
    block_timeout: float | None
    forward_logs: bool
    store: Store | None
    engine: Engine | None


def read_settings(
    order: Order, prefer_utc: bool, schedulers: int | None, options: ManagerOptions
) -> Settings:
    """Read and check the arguments of `Manager`.

    Args:
        order: That of its `cls`.
        prefer_utc: As given for its `cls`.
        schedulers: How many in all, if the user gave a number.
        options: All other arguments, without omissions.

    Raises:
        TypeError: An argument has a wrong type, or the initializer is a generator function.
        ValueError: A count or a choice is out of range, or two arguments contradict each other.
        NotShippable: A context variable is not a global of a module.
    """
    engine, workers = read_engine(options["engine"]), options["workers"]
    if engine is not None:
        if workers is not None:
            check_count("workers", workers, 0)
        workers = workers_of(engine, workers)
    layout, local = lay_out(order, schedulers, workers)
    max_restarts = _read_restarts(options["max_restarts"])
    on_worker_loss, monitor = options["on_worker_loss"], options["monitor"]
    if on_worker_loss not in ("fail", "rerun"):
        raise ValueError(f'on_worker_loss must be "fail" or "rerun", not {on_worker_loss!r}')
    check_flag("monitor", monitor)
    check_flag("forward_logs", options["forward_logs"])
    name = options["name"]
    if name is not None:
        name = read_text("name", name, "and the manager's id is its name")
        if not name.isprintable():
            raise ValueError(f"name must be printable, as in a list of processes, not {name!r}")
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
    initargs = tuple(initargs)
    if initializer is None and initargs:
        raise ValueError("initargs are for an initializer, and there is none")
    loop_initializer = options["loop_initializer"]
    if loop_initializer is not None and not callable(loop_initializer):
        raise TypeError(
            f"loop_initializer must be a function that makes a loop, not {loop_initializer!r}; "
            "leave out the ()"
        )
    for of_workers in _OF_WORKERS:
        if local and options[of_workers] is not None:
            raise ValueError(
                f"{of_workers} is for worker processes; workers=0 has none, so leave it out"
            )
    for count in ("max_tasks_per_worker", "max_rss_per_worker"):
        if options[count] is not None:
            check_count(count, options[count], 1)
    block_timeout = options["block_timeout"]
    if block_timeout is not None:
        block_timeout = read_seconds("block_timeout", block_timeout, above_zero=True)
    return Settings(
        order,
        prefer_utc,
        layout,
        local,
        None if initializer is None else (initializer, initargs),
        loop_initializer,
        on_worker_loss == "rerun",
        max_restarts,
        monitor,
        max_running,
        name,
        read_context(options["context"]),
        options["max_tasks_per_worker"],
        options["max_rss_per_worker"],
        block_timeout,
        options["forward_logs"],
        _read_store(options["store"], order),
        engine,
    )


_OF_WORKERS: tuple[
    Literal["loop_initializer", "max_tasks_per_worker", "max_rss_per_worker", "block_timeout"], ...
] = ("loop_initializer", "max_tasks_per_worker", "max_rss_per_worker", "block_timeout")


def _read_store(store: object, order: Order) -> Store | None:
    if store is None:
        return None
    if order is Order.LIFO:
        raise ValueError(
            "a LifoQueuedScheduler cannot have a store: after a restart its order would be lost; "
            "use a TimedScheduler or a QueuedScheduler"
        )
    if isinstance(store, str | os.PathLike):
        return SQLiteStore(store)
    if not callable(getattr(store, "commit", None)):
        raise TypeError(f"store must be a path or a SQLiteStore, not {store!r:.200}")
    return cast("Store", store)


def _check_initializer(initializer: object) -> None:
    made = getattr(initializer, "gen", None)  # if a decorated function was called
    if not callable(initializer) or inspect.isasyncgen(made) or inspect.isgenerator(made):
        raise TypeError(
            f"initializer must be a function, not {initializer!r}; give the function itself, "
            "without a call, and its arguments as initargs"
        )
    function: Any = initializer
    while isinstance(function, partial):
        function = function.func
    if getattr(function, "__globals__", None) is vars(contextlib):  # it is decorated
        function = inspect.unwrap(function)
        if inspect.isasyncgenfunction(function):  # @asynccontextmanager: it returns a lifespan
            return
    for body in (function, type(function).__call__):
        if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
            raise TypeError(
                f"nothing of the initializer {initializer!r} would run, as it contains a yield; "
                "make it an async function and decorate it with @contextlib.asynccontextmanager: "
                "what comes before the yield runs before any task, what comes after it at the end"
            )


def _read_restarts(max_restarts: tuple[int, float]) -> tuple[int, float]:
    if not isinstance(max_restarts, tuple | list) or len(max_restarts) != 2:
        raise TypeError(f"max_restarts must be (how many, in seconds), not {max_restarts!r}")
    most, period = max_restarts
    check_count("max_restarts[0]", most, 0)
    if not isinstance(period, int | float) or not 0 < period < math.inf:
        raise ValueError(f"max_restarts[1] must be seconds, more than 0, not {period!r}")
    return most, period
