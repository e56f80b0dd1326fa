"""The context that goes with each task: variables, and values captured by pairs of functions.

    schedule ─► capture ─► captured ─► the record of the task ═══► restore ─► an attempt
                               └─ without a process in between ──────┘

Values are captured in the caller's context and thread, and restored in the context of each
attempt, right before its first step. How they travel is not known here. The word "propagation" is
OpenTelemetry's.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from .._scheduling.coroutines import name_of
from ..errors import NotShippable
from .names import variable_name

Pair = tuple[Callable[[], Any], Callable[[Any], object]]
ContextItem = ContextVar[Any] | Pair
"""An item of `Manager(context=...)`."""

Captured = Sequence[Any]
"""Which items had a value, as the bits of an int, and those values in the order of the items.

Without names they cost each task the least (`benchmarks/bench_context.py`), but make sense only
together with the very same items, which all processes of a manager have. To keep them for another
manager, keep the result of `Propagation.pairs`, by name."""

_MISSING: Any = object()


class Propagation:
    """The items whose values go with each task.

    Args:
        items: Variables that every process can find by name, and pairs of functions.
    """

    def __init__(self, items: Sequence[ContextItem]) -> None:
        self.items = items
        self._all = (1 << len(items)) - 1

    def capture(self) -> Captured:
        """Return the values in the current context. A variable without one is left out.

        Raises:
            BaseException: Whatever a function of a pair raises, with a note.
        """
        found, values = 0, [0]
        for index, item in enumerate(self.items):
            if isinstance(item, tuple):
                value = _call(item[0], "to capture what goes with a task")
            else:
                value = item.get(_MISSING)
            if value is not _MISSING:
                found |= 1 << index
                values.append(value)
        values[0] = found
        return values

    def restore(self, captured: Captured) -> None:
        """Set captured values in the current context.

        An item that had no value is left alone: its default, or an initializer's value, holds.

        Raises:
            ValueError: It was captured for other items.
            BaseException: Whatever a function of a pair raises, with a note.
        """
        values = iter(captured)
        next(values)
        for item in self._with_values(captured):
            if isinstance(item, tuple):
                _call(item[1], "to restore what came with the task", next(values))
            else:
                item.set(next(values))

    def pairs(self, captured: Captured) -> Iterable[tuple[ContextItem, Any]]:
        """Return the items that had a value, each with its value.

        Raises:
            ValueError: It was captured for other items, as far as their number shows.
        """
        return zip(self._with_values(captured), captured[1:], strict=True)

    def _with_values(self, captured: Captured) -> Sequence[ContextItem]:
        """Return the items that had a value; see `pairs`."""
        found, count, items = captured[0], len(captured) - 1, self.items
        if found != self._all:
            items = [item for index, item in enumerate(items) if found >> index & 1]
        if count != len(items) or found >> len(self.items):
            raise ValueError(
                f"the {count} values that came with the task are not those of the "
                f"{len(self.items)} items that Manager(context=...) lists here"
            )
        return items

    def named(self, captured: Captured) -> dict[str, dict[Any, Any]]:
        """Return the captured values by kind and name; for messages."""
        kinds: dict[str, dict[Any, Any]] = {"value of the context variable": {}, "value of": {}}
        for item, value in self.pairs(captured):
            if isinstance(item, tuple):
                kinds["value of"][f"{name_of(item[0])}()"] = value
            else:
                kinds["value of the context variable"][item.name] = value
        return kinds

    def parts(self) -> dict[str, dict[Any, Any]]:
        """Return the items by kind and name; for messages."""
        kinds: dict[str, dict[Any, Any]] = {"context variable": {}, "function": {}}
        for item in self.items:
            if isinstance(item, tuple):
                kinds["function"] |= {name_of(function): function for function in item}
            else:
                kinds["context variable"][item.name] = item
        return kinds


def read_context(context: Sequence[Any]) -> Propagation | None:
    """Read the manager's option `context`; None if nothing goes with its tasks.

    Raises:
        TypeError: It is not a list of context variables and pairs of functions.
        NotShippable: A variable is not a global of a module, so a worker could not find it.
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
        f"the context variable {variable.name!r} is not, or no longer, a global of a module, where "
        "a worker would find it: make it one"
    )


def _call(function: Callable[..., Any], what_for: str, *args: Any) -> Any:
    try:
        return function(*args)
    except BaseException as error:
        with contextlib.suppress(Exception):  # its class may forbid it
            name, call = name_of(function), "Manager(context=...)"
            BaseException.add_note(error, f"{name}(), from {call}, was called {what_for}")
        raise
