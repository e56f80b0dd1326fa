"""What of a context goes with each task: variables, and what pairs of functions say.

    schedule ─► capture ─► values ─► the record of the task ═══► restore ─► an attempt
                              └─ without a process in between ──────┘

Values are taken in the context, and the thread, of who schedules, and restored in that of each
attempt, right before its first step. How they travel is not known here. "Propagation" is
OpenTelemetry's word for it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from typing import Any

from .._scheduling.coroutines import name_of
from ..errors import NotShippable
from .names import variable_name

Pair = tuple[Callable[[], Any], Callable[[Any], object]]
ContextItem = ContextVar[Any] | Pair
"""What `Manager(context=...)` lists."""

Captured = Sequence[Any] | None
"""Which items have a value, as the bits of an int, and those values; None if none has."""

_MISSING: Any = object()


class Propagation:
    """The items whose values go with each task.

    Args:
        items: Variables that every process finds by their names, and pairs of functions.
    """

    def __init__(self, items: Sequence[ContextItem]) -> None:
        self._items = items
        self._all = (1 << len(items)) - 1

    def capture(self) -> Captured:
        """Take the values that hold here and now. A variable that has none keeps it so.

        Raises:
            BaseException: Whatever a function of a pair raises, with a note.
        """
        found, values = 0, [0]
        for index, item in enumerate(self._items):
            if isinstance(item, tuple):
                value = _call(item[0], "to capture what is to go with a task")
            else:
                value = item.get(_MISSING)
            if value is not _MISSING:
                found |= 1 << index
                values.append(value)
        values[0] = found
        return values if found else None

    def restore(self, captured: Captured) -> None:
        """Set in the present context what was taken in another one.

        Raises:
            BaseException: Whatever a function of a pair raises, with a note.
        """
        if captured is None:
            return
        values = iter(captured)
        for item in self._with(next(values)):
            if isinstance(item, tuple):
                _call(item[1], "to restore what came with the task", next(values))
            else:
                item.set(next(values))

    def _with(self, found: int) -> Sequence[ContextItem]:
        """Return the items that have a value."""
        if found == self._all:
            return self._items
        return [item for index, item in enumerate(self._items) if found >> index & 1]

    def named(self, captured: Sequence[Any]) -> dict[str, dict[Any, Any]]:
        """Return what was captured, by what it is of and its name; for messages."""
        found, *values = captured
        kinds: dict[str, dict[Any, Any]] = {"value of the context variable": {}, "value of": {}}
        for item, value in zip(self._with(found), values, strict=True):
            if isinstance(item, tuple):
                kinds["value of"][f"{name_of(item[0])}()"] = value
            else:
                kinds["value of the context variable"][item.name] = value
        return kinds

    def parts(self) -> dict[str, dict[Any, Any]]:
        """Return the items, by what they are and their names; for messages."""
        kinds: dict[str, dict[Any, Any]] = {"context variable": {}, "function": {}}
        for item in self._items:
            if isinstance(item, tuple):
                kinds["function"] |= {name_of(function): function for function in item}
            else:
                kinds["context variable"][item.name] = item
        return kinds


def read_context(context: Sequence[Any]) -> Propagation | None:
    """Read what a manager was told of contexts; None: nothing goes with its tasks.

    Raises:
        TypeError: It is no list of context variables and pairs of functions.
        NotShippable: A variable is no module's global, by which a worker would find it.
    """
    if isinstance(context, str | bytes) or not isinstance(context, Sequence):
        hint = f"write [{context.name}]" if isinstance(context, ContextVar) else "a list"
        raise TypeError(
            f"context is a list of context variables, and of pairs (capture, restore): {hint}, "
            f"not {context!r:.200}"
        )
    items = tuple(context)
    if len(items) == 2 and all(map(callable, items)):
        raise TypeError("context must be a list of pairs: write [(capture, restore)]")
    for item in items:
        if isinstance(item, ContextVar):
            if variable_name(item) is None:
                pair = "or list a pair of functions, (capture, restore), in its place"
                raise NotShippable(f"{unnamed(item)}, {pair}")
        elif not isinstance(item, tuple) or len(item) != 2 or not all(map(callable, item)):
            raise TypeError(
                "context lists context variables, and tuples of two functions, "
                f"(capture, restore), not {item!r:.200}"
            )
        elif any(map(inspect.iscoroutinefunction, item)):
            raise TypeError(
                f"the functions of the pair {item!r:.200} are called, not awaited: they must not "
                "be async"
            )
    return Propagation(items) if items else None


def unnamed(variable: ContextVar[Any]) -> str:
    """Return why a variable is refused, and what to do about it."""
    return (
        f"the context variable {variable.name!r} is no global of a module, by which a worker would "
        "find it: make it one"
    )


def _call(function: Callable[..., Any], what_for: str, *args: Any) -> Any:
    try:
        return function(*args)
    except BaseException as error:
        with contextlib.suppress(Exception):  # its class may forbid it
            name, call = name_of(function), "Manager(context=...)"
            BaseException.add_note(error, f"{name}(), of {call}, was called {what_for}")
        raise


_captured: ContextVar[Captured] = ContextVar("aioscheduler_captured", default=None)
"""In a context that goes with a task of this process."""


def with_captured(captured: Captured) -> Context:
    """Return a copy of the present context that has with it what was captured."""
    context = copy_context()
    context.run(_captured.set, captured)
    return context


def captured_here() -> Captured:
    """Return what was captured with the present context."""
    return _captured.get()
