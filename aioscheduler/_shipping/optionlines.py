"""Options that a worker is sent once, for all tasks that have the same.

    given here:      Options ──────────────┬─► its number
                        └─(pickle `retry`)─┤
    from a worker:   fields, as sent ──────┘

A `Retry` is a pickle in its line, for it may name what is known by value. The host never reads the
pickle of a worker's: lines are equal if their bytes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._transport.definitionlog import DefinitionLog
from ..options import Options
from .definitions import OPTIONS
from .undolog import UndoLog

Dump = Callable[[object], tuple[bytes, list[int]]]


class OptionLines:
    """The options in a log.

    Args:
        log: Has a line for each.
        undo: Of the changes.
        dump: Pickles a `Retry`, and says which lines its pickle names.
    """

    def __init__(self, log: DefinitionLog, undo: UndoLog, dump: Dump) -> None:
        self._log = log
        self._undo = undo
        self._dump = dump
        self._numbers: dict[tuple[Any, ...], int] = {}  # by `Options`, and by what is sent of them
        self._sent: dict[int, tuple[Any, ...]] = {}  # the other way round
        self._given: dict[int, Options] = {}  # and of the first that was sent so

    def __contains__(self, number: int) -> bool:
        return number in self._sent

    def number(self, options: Options) -> int:
        """Return a number, leased, for options; the same for equal ones.

        Raises:
            Exception: Whatever pickling their `Retry` raises.
        """
        number = self._numbers.get(options)
        if number is not None:
            return self._log.lease(number)
        if options.retry is None:
            return self.adopt(options, ())
        payload, lines = self._dump(options.retry)
        number = self.adopt(options._replace(retry=payload), lines)  # type: ignore[arg-type]
        # Of functions made anew for each call, which are sent alike, one is kept.
        if number not in self._given:
            self._undo.set(self._given, int(number), options)
            self._undo.set(self._numbers, options, int(number))
        return number

    def adopt(self, sent: Sequence[Any], lines: Sequence[int]) -> int:
        """Return a number, leased, for what is sent of options.

        Args:
            sent: The fields of `Options`; instead of a `Retry` its pickle.
            lines: Leases of what that names.
        """
        key = tuple(sent)
        number = self._numbers.get(key)
        if number is None:
            number = self._log.write(OPTIONS, *key, names=lines)
            self._undo.set(self._numbers, key, number)
            self._undo.set(self._sent, number, key)
        return self._log.lease(number)

    def name(self, number: int) -> str | None:
        """Return the name that a task has by its options, None if it has none by them."""
        name: str | None = self._sent[number][0]
        return name

    def drop(self, number: int) -> None:
        """Forget options that no worker knows any more."""
        del self._numbers[self._sent.pop(number)]
        given = self._given.pop(number, None)
        if given is not None:
            del self._numbers[given]
