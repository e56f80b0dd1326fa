"""How much memory this process has, for a host that recycles workers which have too much."""

from __future__ import annotations

from collections.abc import Callable


def make_measure() -> Callable[[], int]:
    """Return what gives the resident bytes of this process.

    psutil is imported here, as most workers do without it.
    """
    import psutil

    info = psutil.Process().memory_info
    return lambda: int(info().rss)
