"""Runs very many coroutines at given times, or in order, on every core of a machine."""

from .batch import Batch
from .errors import (
    AioschedulerError,
    ManagerClosed,
    NotShippable,
    RemoteError,
    RemoteTraceback,
    TaskLimitReached,
    TooLate,
    UnknownTask,
    WorkerLost,
    WorkerStartError,
)
from .inside import (
    ManagerProxy,
    current_attempt,
    current_due,
    current_manager,
    current_task,
    now,
)
from .inspection import TaskInfo
from .manager import Manager
from .retry import Retry
from .scheduler import LifoQueuedScheduler, QueuedScheduler, TimedScheduler
from .stats import HostStats, ManagerStats, WorkerState, WorkerStats
from .task import State, Task, TaskRef

__version__ = "2.0.0.dev0"

__all__ = [
    "AioschedulerError",
    "Batch",
    "HostStats",
    "LifoQueuedScheduler",
    "Manager",
    "ManagerClosed",
    "ManagerProxy",
    "ManagerStats",
    "NotShippable",
    "QueuedScheduler",
    "RemoteError",
    "RemoteTraceback",
    "Retry",
    "State",
    "Task",
    "TaskInfo",
    "TaskLimitReached",
    "TaskRef",
    "TimedScheduler",
    "TooLate",
    "UnknownTask",
    "WorkerLost",
    "WorkerStartError",
    "WorkerState",
    "WorkerStats",
    "current_attempt",
    "current_due",
    "current_manager",
    "current_task",
    "now",
]
