"""Tasks that wait for CONFIRM, which the host sends late and in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from words import Words

from aioscheduler import Manager, Task
from aioscheduler._transport import wire

if TYPE_CHECKING:
    from .virtual import VirtualLoop


class Late(Words):
    """Fake durables of a link, which confirm its tasks when the seed says so.

    Attributes:
        begun: Numbers of tasks that may have begun, as they are confirmed.
    """

    def __init__(self, loop: VirtualLoop, generator: random.Random) -> None:
        super().__init__()
        self.begun: set[int] = set()
        self._loop = loop
        self._random = generator
        self._slowness = generator.choice((0.0, 0.01, 2.0))

    def proposed(self, numbers: Sequence[int], begin: Callable[[list[int]], None]) -> None:
        self.begun.difference_update(numbers)  # the next attempt must be confirmed again
        delay = self._random.random() * self._slowness
        if delay:
            self._loop.call_later(delay, self._begin, list(numbers), begin)
        else:
            self._begin(numbers, begin)

    def _begin(self, numbers: Sequence[int], begin: Callable[[list[int]], None]) -> None:
        self.begun.update(numbers)
        begin(list(numbers))


def confirm_late(
    manager: Manager, loop: VirtualLoop, generator: random.Random
) -> Callable[[Task[Any]], bool]:
    """Confirm late; return a function that says whether a waiting task is confirmed."""
    lates = {}
    for link in manager._remotes:
        lates[link] = link.book.durables = Late(loop, generator)
    return lambda task: task._number in lates[task._home].begun  # type: ignore[index]


def confirm_some(manager: Manager, generator: random.Random) -> Callable[[Task[Any]], int]:
    """Make some tasks of a manager wait; return a function that says so of a task."""
    chosen: dict[tuple[object, int], int] = {}

    def add_some(
        link: Any,
        add: Callable[..., int],
        scheduler: int,
        due: int,
        function: int,
        payload: wire.Payload,
        record: wire.Record = None,
    ) -> int:
        confirmed = generator.choice((1, wire.ALONE, wire.FEW)) if generator.random() < 0.3 else 0
        if confirmed:
            record = wire.make_record(wire.read_record(record)._replace(confirmed=confirmed))
        number = add(scheduler, due, function, payload, record)
        if confirmed:
            chosen[link, number] = confirmed
        return number

    for link in manager._remotes:
        link.book.outbox.add = partial(add_some, link, link.book.outbox.add)  # type: ignore[method-assign]
    return lambda task: chosen.get((task._home, task._number), 0)
