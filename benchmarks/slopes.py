"""How fast a figure grows that goes up and down, too: the slope of Theil and Sen. Pure."""

from __future__ import annotations

import statistics
from array import array


class Series:
    """One figure, measured again and again, of one process or of several that follow each other."""

    def __init__(self) -> None:
        self._times = array("d")
        self._births = array("d")
        self._values = array("d")

    def add(self, at: float, born: float, value: float) -> None:
        """Add a point.

        Args:
            at: When it was measured, in seconds.
            born: When the process began that it was measured of.
            value: What it was.
        """
        self._times.append(at)
        self._births.append(born)
        self._values.append(value)

    def slope(self, same_age: bool) -> float | None:
        """Return what comes in a second: the median of the slopes between all pairs of points.

        Args:
            same_age: Whether only points of the same age, in whole seconds, of different
                processes are paired: each of them grows while it is young.

        Returns:
            The slope; None if there are no pairs.
        """
        points = list(zip(self._times, self._births, self._values, strict=True))
        slopes = [
            (value - earlier) / (at - before)
            for index, (at, born, value) in enumerate(points)
            for before, born_before, earlier in points[:index]
            if not same_age or (born != born_before and int(at - born) == int(before - born_before))
        ]
        return statistics.median(slopes) if slopes else None

    def thirds(self) -> tuple[float, float]:
        """Return the medians of the first and of the last third."""
        count = max(1, len(self._values) // 3)
        return statistics.median(self._values[:count]), statistics.median(self._values[-count:])
