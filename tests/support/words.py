"""Fake `durables.Durables`, which make tasks wait for CONFIRM and keep none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial


class Words:
    """A collector of the functions that confirm, for the test to call.

    Attributes:
        begins: The functions, one for each announcement.
    """

    def __init__(self) -> None:
        self.begins: list[Callable[[], None]] = []

    def proposed(self, numbers: Sequence[int], begin: Callable[[list[int]], None]) -> None:
        self.begins.append(partial(begin, list(numbers)))

    def confirmed_again(self, number: int) -> int:
        return 0

    def all_durable(self, numbers: Iterable[int]) -> bool:
        return False

    def announced(self, numbers: Iterable[int]) -> None: ...

    def unbegun(self, numbers: Iterable[int]) -> None: ...

    def retried(self, until: Mapping[int, int]) -> None: ...

    def moved(self, number: int, due: int) -> None: ...

    def runs_again(self, number: int, otherwise: bool) -> bool:
        return otherwise

    def stays(self, number: int, running: bool) -> bool:
        return False
