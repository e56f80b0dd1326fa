"""Works out the number of schedulers and workers of a manager, from the user's counts, if any."""

from __future__ import annotations

import sys
from typing import Protocol, cast

from .._processes.cores import usable_cores
from .._scheduling.order import Order

TIMED_PER_WORKER = 4


class Engine(Protocol):
    """Runs workers on other machines (`_outpost.engine.Engine`); only what is needed here."""

    @property
    def nodes(self) -> int: ...

    @property
    def workers_per_node(self) -> int: ...


def check_count(name: str, value: object, least: int) -> None:
    """Check that a value is an int of at least `least`.

    Raises:
        TypeError: It is not an int, or is a bool.
        ValueError: It is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_flag(name: str, value: object) -> None:
    """Check that a value is True or False: "no" would be true.

    Raises:
        TypeError: It is not a bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def workers_of(engine: Engine, workers: int | None) -> int:
    """Return how many workers an engine has.

    Args:
        engine: The engine that runs them.
        workers: The number that the user gave, if any.

    Raises:
        ValueError: The user gave another number.
    """
    each = f"nodes={engine.nodes} times workers_per_node={engine.workers_per_node}"
    found = engine.nodes * engine.workers_per_node
    if workers is not None and workers != found:
        raise ValueError(
            f"workers={workers} contradicts the engine, which has {each}, {found} in all; leave "
            "out workers" + (", or, to run all in this process, engine" if workers == 0 else "")
        )
    return found


def read_engine(engine: object) -> Engine | None:
    """Return the engine that the user gave, if any.

    Raises:
        TypeError: It is something else.
    """
    if engine is None:
        return None
    if isinstance(engine, type) or not all(hasattr(engine, name) for name in _OF_ENGINE):
        raise TypeError(
            f"engine must be an engine, such as aioscheduler.ray.RayEngine(nodes=2, "
            f"workers_per_node=4), not {engine!r:.200}"
        )
    return cast("Engine", engine)


_OF_ENGINE = ("nodes", "workers_per_node", "command", "settings", "lost_after")


def lay_out(order: Order, schedulers: int | None, workers: int | None) -> tuple[list[int], bool]:
    """Return the number of schedulers of each worker, and whether they run in this process.

    Args:
        order: The order of the schedulers.
        schedulers: How many in all, if the user gave a number.
        workers: How many processes, if the user gave a number.

    Raises:
        TypeError: A count is not an int.
        ValueError: A count is too small, or there are more workers than schedulers.
    """
    if schedulers is not None:
        check_count("schedulers", schedulers, 1)
    if workers is not None:
        check_count("workers", workers, 0)
    if sys.platform == "win32":
        if workers:
            raise ValueError("worker processes do not run on Windows; use workers=0")
        workers = 0
    local = workers == 0
    if order is not Order.TIMED and schedulers is None:
        schedulers = workers or 1
    if workers is None:
        workers = usable_cores() if schedulers is None else min(usable_cores(), schedulers)
    workers = workers or 1
    if schedulers is None:
        schedulers = TIMED_PER_WORKER * workers
    if workers > schedulers:
        raise ValueError(
            f"workers={workers} is more than schedulers={schedulers}: each worker needs one"
        )
    each, more = divmod(schedulers, workers)
    return [each + (worker < more) for worker in range(workers)], local
