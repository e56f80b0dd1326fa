"""The garbage that classes are: each is a circle, which only a look at all objects finds.

Python looks at all objects when a quarter of them is new, which may be after thousands of classes;
and as long as the host has not found one, its workers and the log have it, too. So where classes
are made for each call, somebody looks for them, at a tenth of what it costs to ship them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

ENOUGH = 64  # classes; fewer are no reason for a look at all objects
CLASS_COST = 0.0003  # seconds to define one in a worker
SHARE = 0.1


class ClassGarbage:
    """Collects classes that nobody uses any more.

    Args:
        collect: Looks at all objects.
        clock: Gives seconds.
    """

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._collected = 0  # how many there had been at the last look
        self._cost = 0.0  # of that, in seconds

    def note(self, total: int) -> None:
        """Look for them if there may be enough, and if the program has left the looking on.

        Args:
            total: How many classes there have been so far that may be garbage by now.
        """
        waiting = total - self._collected
        if waiting >= ENOUGH and waiting * CLASS_COST * SHARE >= self._cost and gc.isenabled():
            self._collected, start = total, self._clock()
            self._collect()
            self._cost = self._clock() - start
