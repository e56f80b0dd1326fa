"""Durable functions that the host does not have: the worker imports the module of each.

    a row of the file ─► its function's name is not registered here
                           └─► LateBound(name, qualname) ═══► bind: import the module

The host imports nothing for a task: a module may take long, print, or end the process.
"""

from __future__ import annotations

import importlib
import pickle

from .. import registry
from ..registry import Durable


class UnknownFunction(LookupError):
    """No function is registered under a durable name."""


class LateBound:
    """A placeholder for a durable function in a frame.

    Args:
        name: Its name in the file.
        qualname: Its last known `module:qualname`.
    """

    def __init__(self, name: str, qualname: str) -> None:
        self._call = name, qualname

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return bind, self._call

    def pickled(self) -> bytes:
        """Return the pickle for the function column of a frame."""
        return pickle.dumps(self, 5)


def bind(name: str, qualname: str) -> Durable:
    """Return the function registered under a name, after importing its module if need be.

    Raises:
        UnknownFunction: There is none, even then.
        Exception: Whatever importing the module raises, except that the module does not exist.
    """
    found = registry.find(name)
    if found is None:
        module = qualname.partition(":")[0]
        missing = None
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not _is_part(module, error.name):
                raise
            missing = error
        found = registry.find(name)
        if found is None:
            raise UnknownFunction(
                f"no function is registered as {name!r}, which was {qualname}: decorate one with "
                f"@durable({name!r}), have the program import its module, and requeue the task"
            ) from missing
    return found


def _is_part(module: str, missing: str | None) -> bool:
    """Return whether the module itself is missing, and not one that it imports."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")
