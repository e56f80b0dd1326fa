"""Single tasks that wait for the host's word, which no option asks for yet."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from aioscheduler import Manager, Task
from aioscheduler._transport import wire


def confirm_some(manager: Manager, generator: random.Random) -> Callable[[Task[Any]], bool]:
    """Have some of a manager's tasks wait; return what tells whether a task is one of them."""
    chosen: set[tuple[object, int]] = set()

    def patch(link: Any) -> None:
        add = link.book.outbox.add

        def add_some(
            scheduler: int, due: int, function: int, payload: Any, record: Any = None
        ) -> int:
            confirmed = generator.random() < 0.3
            if confirmed:
                record = wire.make_record(wire.read_record(record)._replace(confirmed=True))
            number: int = add(scheduler, due, function, payload, record)
            if confirmed:
                chosen.add((link, number))
            return number

        link.book.outbox.add = add_some

    for link in manager._remotes:
        patch(link)
    return lambda task: (task._home, task._number) in chosen
