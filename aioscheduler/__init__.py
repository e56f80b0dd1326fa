"""Runs very many coroutines at given times, or in order, on every core of a machine."""

from .errors import (
    AioschedulerError,
    ManagerClosed,
    NotShippable,
    RemoteError,
    RemoteTraceback,
    TaskLimitReached,
    UnknownTask,
    WorkerLost,
    WorkerStartError,
)
from .manager import Manager
from .scheduler import LifoQueuedScheduler, QueuedScheduler, TimedScheduler
from .task import State, Task, TaskRef

__version__ = "2.0.0.dev0"

__all__ = [
    "AioschedulerError",
    "LifoQueuedScheduler",
    "Manager",
    "ManagerClosed",
    "NotShippable",
    "QueuedScheduler",
    "RemoteError",
    "RemoteTraceback",
    "State",
    "Task",
    "TaskLimitReached",
    "TaskRef",
    "TimedScheduler",
    "UnknownTask",
    "WorkerLost",
    "WorkerStartError",
]
