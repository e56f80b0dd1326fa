"""How many schedulers and workers a manager has, from what the user said and left unsaid."""

from __future__ import annotations

import sys

from .._processes.cores import usable_cores
from .._scheduling.order import Order

TIMED_PER_WORKER = 4


def check_count(name: str, value: object, least: int) -> None:
    """Refuses what is not an int of at least `least`.

    Raises:
        TypeError: It is no int (a bool is none).
        ValueError: It is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_flag(name: str, value: object) -> None:
    """Refuses what is neither True nor False: "no" would be true.

    Raises:
        TypeError: It is no bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def lay_out(order: Order, schedulers: int | None, workers: int | None) -> tuple[list[int], bool]:
    """Gives the number of schedulers of each worker, and whether that is this process.

    Args:
        order: Of the schedulers.
        schedulers: How many in all, if the user said so.
        workers: How many processes, if the user said so.

    Raises:
        TypeError: A count is no int.
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
