"""What of a context goes with each task: variables, and what pairs of functions say.

    schedule ─► capture ─► captured ─► the record of the task ═══► restore ─► an attempt
                               └─ without a process in between ──────┘

Values are taken in the context, and the thread, of who schedules, and restored in that of each
attempt, right before its first step. How they travel is not known here. "Propagation" is
OpenTelemetry's word for it.
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
"""What `Manager(context=...)` lists."""

Captured = Sequence[Any]
"""Which items had a value, as the bits of an int, and those values in the order of the items.

Without their names they take the least of each task (`benchmarks/bench_context.py`); so they are
of use beside the very same items alone, as all processes of a manager have them. Who keeps them
for another manager keeps what `Propagation.pairs` returns, by name."""

_MISSING: Any = object()


class Propagation:
    """The items whose values go with each task.

    Args:
        items: Variables that every process finds by their names, and pairs of functions.
    """

    def __init__(self, items: Sequence[ContextItem]) -> None:
        self.items = items
        self._all = (1 << len(items)) - 1

    def capture(self) -> Captured:
        """Take the values that hold here and now. A variable without one is left out.

        Raises:
            BaseException: Whatever a function of a pair raises, with a note.
        """
        found, values = 0, [0]
        for index, item in enumerate(self.items):
            if isinstance(item, tuple):
                value = _call(item[0], "to capture what is to go with a task")
            else:
                value = item.get(_MISSING)
            if value is not _MISSING:
                found |= 1 << index
                values.append(value)
        values[0] = found
        return values

    def restore(self, captured: Captured) -> None:
        """Set in the present context what was captured in another one.

        What had no value there has here what it has: a default, or what an initializer has set.

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
        """Return the items that had a value, each with that.

        Raises:
            ValueError: It was captured for other items, as far as their number shows it.
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
        """Return what was captured, by what it is of and its name; for messages."""
        kinds: dict[str, dict[Any, Any]] = {"value of the context variable": {}, "value of": {}}
        for item, value in self.pairs(captured):
            if isinstance(item, tuple):
                kinds["value of"][f"{name_of(item[0])}()"] = value
            else:
                kinds["value of the context variable"][item.name] = value
        return kinds

    def parts(self) -> dict[str, dict[Any, Any]]:
        """Return the items, by what they are and their names; for messages."""
        kinds: dict[str, dict[Any, Any]] = {"context variable": {}, "function": {}}
        for item in self.items:
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
        f"the context variable {variable.name!r} is no global of a module, or no longer one, and "
        "by that a worker would find it: make it one"
    )


def _call(function: Callable[..., Any], what_for: str, *args: Any) -> Any:
    try:
        return function(*args)
    except BaseException as error:
        with contextlib.suppress(Exception):  # its class may forbid it
            name, call = name_of(function), "Manager(context=...)"
            BaseException.add_note(error, f"{name}(), of {call}, was called {what_for}")
        raise
