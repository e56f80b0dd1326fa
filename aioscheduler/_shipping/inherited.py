"""Objects that a process can only inherit at its start: multiprocessing's locks, queues and so on.

They do not travel through a pipe. Those among the initializer's arguments are handed to each new
process (`WorkerConfig.handed`), and the pickle of the call refers to them by index.
"""

from __future__ import annotations

import pickle
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

from . import restore
from .catalog import Catalog
from .pickler import Pickler


class CallPickler(Pickler):
    """A pickler of the initializer's call, which may contain primitives of multiprocessing."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__ in _INHERITED:
            check_inheritable(obj)
            self._catalog.handed.append(obj)
            return _handed, (len(self._catalog.handed) - 1,)
        return super().reducer_override(obj)


_INHERITED = frozenset(
    f"multiprocessing.{name}" for name in ("connection", "queues", "sharedctypes", "synchronize")
)


class _Spawning:
    """Pretends to spawn a process, to find out what could be passed to it."""

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor

    DupFd = duplicate_for_child


def check_inheritable(primitive: object) -> None:
    """Check that a spawned process can inherit a primitive of multiprocessing.

    Raises:
        pickle.PicklingError: It was made for forked processes.
    """
    before = get_spawning_popen()
    set_spawning_popen(_Spawning())  # type: ignore[arg-type]  # it has the methods that are called
    try:
        ForkingPickler.dumps(primitive)
    except RuntimeError as error:
        raise pickle.PicklingError(
            f"{error}; make it by multiprocessing.get_context('spawn'), as workers are spawned"
        ) from error
    finally:
        set_spawning_popen(before)


def _handed(index: int) -> Any:
    catalog: Catalog = restore.active.catalog
    return catalog.handed[index]
