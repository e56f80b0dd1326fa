"""What addresses a task from anywhere, in every process: its reference."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from .errors import UnknownTask


class TaskRef(NamedTuple):
    """Addresses a task from anywhere: immutable, hashable, picklable.

    That of a durable task, as its handle or the list of tasks gives it, is good over restarts. That
    which a task is given inside is of this manager alone.

    Attributes:
        manager: The manager's id; of a durable task that of its store. A scheduler without a
            manager has no references.
        worker: The worker's slot, from 0; -1 of a durable task, which may be at any or at none.
        scheduler: The scheduler within the worker, from 0; -1 of a durable task.
        number: The task within the worker's slot; of a durable task its row in the store.
    """

    manager: str
    worker: int
    scheduler: int
    number: int

    @property
    def is_durable(self) -> bool:
        """Whether it is of a task in a store."""
        return self.worker == -1

    def __str__(self) -> str:
        if self.is_durable:
            return f"{self.manager[:8]}/row {self.number}"
        return f"{self.manager}/{self.worker}/{self.scheduler}/{self.number}"


def check_ref(
    ref: object, manager: str, schedulers: Container[tuple[int, int]], store: str = ""
) -> None:
    """Refuse a reference that names none of a manager's schedulers, and not its store.

    Args:
        ref: What was given.
        manager: The manager's id.
        schedulers: Its schedulers, as (worker, scheduler).
        store: The id of its store; "" if there is none, or it is not open.

    Raises:
        UnknownTask: It is damaged, or another manager's.
        TypeError: It is no reference.
    """
    if not isinstance(ref, TaskRef):
        raise TypeError(f"a TaskRef is needed, not {type(ref).__name__}")
    if store and ref.manager == store and ref[1:3] == (-1, -1) and type(ref.number) is int:
        return
    if ref.manager != manager:
        kind = "store" if ref.is_durable else "manager"
        raise UnknownTask(f"{ref} is a task of another {kind}; ask its manager, when that is ready")
    if not (
        all(type(field) is int for field in ref[1:])
        and (ref.worker, ref.scheduler) in schedulers
        and 0 <= ref.number < 1 << 64
    ):
        raise UnknownTask(f"{ref} is damaged: this manager has no such scheduler or number")
