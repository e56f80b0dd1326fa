"""References: addresses of tasks that are valid in every process."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from .errors import UnknownTask


class TaskRef(NamedTuple):
    """The address of a task, valid in every process: immutable, hashable, picklable.

    A durable task's reference, from its handle or the list of tasks, stays valid across restarts.
    One obtained inside a task is valid for this manager only.

    Attributes:
        manager: The manager's id; for a durable task its store's id. A scheduler without a
            manager has no references.
        worker: The worker's slot, from 0; -1 for a durable task, which may be at any or at none.
        scheduler: The scheduler within the worker, from 0; -1 for a durable task.
        number: The task within the worker's slot; for a durable task its row in the store.
    """

    manager: str
    worker: int
    scheduler: int
    number: int

    @property
    def is_durable(self) -> bool:
        """Whether the task is in a store."""
        return self.worker == -1

    def __str__(self) -> str:
        if self.is_durable:
            return f"{self.manager[:8]}/row {self.number}"
        return f"{self.manager}/{self.worker}/{self.scheduler}/{self.number}"


def check_ref(
    ref: object, manager: str, schedulers: Container[tuple[int, int]], store: str = ""
) -> None:
    """Refuse a reference to neither a manager's schedulers nor its store.

    Args:
        ref: The reference to check.
        manager: The manager's id.
        schedulers: Its schedulers, as (worker, scheduler).
        store: The id of its store; "" if there is none, or it is not open.

    Raises:
        UnknownTask: It is damaged, or belongs to another manager.
        TypeError: It is not a reference.
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
