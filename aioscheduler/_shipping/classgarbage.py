"""Collection of dropped classes: each is a reference cycle, which only a full collection finds.

Python runs a full collection when a quarter of all objects is new, which may be after thousands of
classes; until then the workers and the log keep them, too. So where classes are made for each call,
collections are run for a tenth of the cost of shipping the classes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

ENOUGH = 64  # classes; fewer do not justify a full collection
CLASS_COST = 0.0003  # seconds to define one in a worker
SHARE = 0.1


class ClassGarbage:
    """Collects classes that nobody uses any more.

    Args:
        collect: Runs a full collection.
        clock: Returns seconds.
    """

    def __init__(
        self,
        collect: Callable[[], object] = gc.collect,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._collect = collect
        self._clock = clock
        self._collected = 0  # the total at the last collection
        self._cost = 0.0  # its duration, in seconds

    def note(self, total: int) -> None:
        """Collect if it is worth its cost, and if the program has not disabled collection.

        Args:
            total: How many classes have been shipped so far; any of them may be garbage.
        """
        waiting = total - self._collected
        if waiting >= ENOUGH and waiting * CLASS_COST * SHARE >= self._cost and gc.isenabled():
            self._collected, start = total, self._clock()
            self._collect()
            self._cost = self._clock() - start
