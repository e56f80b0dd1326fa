"""Run very many coroutines at given times, or in order, on every core of a machine."""

from ._durable.sqlite import SQLiteStore
from .batch import Batch
from .deadletters import DeadLetter
from .errors import (
    AioschedulerError,
    ManagerClosed,
    NotDurable,
    NotShippable,
    RemoteError,
    RemoteTraceback,
    StoreError,
    StoreLocked,
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
from .registry import durable
from .repeat import Repeat
from .retry import Retry
from .rules import Cron, Every
from .scheduler import LifoQueuedScheduler, QueuedScheduler, TimedScheduler
from .stats import HostStats, ManagerStats, WorkerState, WorkerStats
from .task import State, Task, TaskRef

__version__ = "2.0.0rc1"

__all__ = [
    "AioschedulerError",
    "Batch",
    "Cron",
    "DeadLetter",
    "Every",
    "HostStats",
    "LifoQueuedScheduler",
    "Manager",
    "ManagerClosed",
    "ManagerProxy",
    "ManagerStats",
    "NotDurable",
    "NotShippable",
    "QueuedScheduler",
    "RemoteError",
    "RemoteTraceback",
    "Repeat",
    "Retry",
    "SQLiteStore",
    "State",
    "StoreError",
    "StoreLocked",
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
    "durable",
    "now",
]
