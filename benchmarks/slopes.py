"""How fast a fluctuating figure grows: the Theil-Sen slope. Pure."""

from __future__ import annotations

import statistics
from array import array


class Series:
    """One figure, measured repeatedly, of one process or of several that succeed each other."""

    def __init__(self) -> None:
        self._times = array("d")
        self._births = array("d")
        self._values = array("d")

    def add(self, at: float, born: float, value: float) -> None:
        """Add a point.

        Args:
            at: When it was measured, in seconds.
            born: When its process began, in seconds.
            value: The value.
        """
        self._times.append(at)
        self._births.append(born)
        self._values.append(value)

    def slope(self, same_age: bool) -> float | None:
        """Return the growth per second: the median of the slopes between all pairs of points.

        Args:
            same_age: Whether to pair only points of the same age, in whole seconds, of different
                processes, as each of them grows while it is young.

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
