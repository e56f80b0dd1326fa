"""What addresses a task from anywhere, in every process: its reference."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from .errors import UnknownTask


class TaskRef(NamedTuple):
    """Addresses a task from anywhere: immutable, hashable, picklable.

    Attributes:
        manager: The manager's id; a scheduler without a manager has no references.
        worker: The worker's place, from 0.
        scheduler: The scheduler within the worker, from 0.
        number: The task within the worker's place.
    """

    manager: str
    worker: int
    scheduler: int
    number: int

    def __str__(self) -> str:
        return f"{self.manager}/{self.worker}/{self.scheduler}/{self.number}"


def check_ref(ref: object, manager: str, schedulers: Container[tuple[int, int]]) -> None:
    """Refuse a reference that names none of a manager's schedulers.

    Args:
        ref: What was given.
        manager: The manager's id.
        schedulers: Its schedulers, as (worker, scheduler).

    Raises:
        UnknownTask: It is damaged, or another manager's.
        TypeError: It is no reference.
    """
    if not isinstance(ref, TaskRef):
        raise TypeError(f"a TaskRef is needed, not {type(ref).__name__}")
    if ref.manager != manager:
        raise UnknownTask(f"{ref} is a task of another manager; ask that one")
    if not (
        all(type(field) is int for field in ref[1:])
        and (ref.worker, ref.scheduler) in schedulers
        and 0 <= ref.number < 1 << 64
    ):
        raise UnknownTask(f"{ref} is damaged: this manager has no such scheduler or number")
