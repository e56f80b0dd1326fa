"""The lines of options: a worker is sent equal options once, for all tasks that have them.

    given here:      Options ──────────────┬─► its number
                        └─(pickle `retry`)─┤
    from a worker:   fields, as sent ──────┘

A `Retry` is pickled in its line, as it may name by-value definitions. The host never reads a pickle
from a worker: lines are equal if their bytes are.
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
        log: The log, with a line for each.
        undo: Records the changes.
        dump: Pickles a `Retry`, and returns the lines that the pickle names.
    """

    def __init__(self, log: DefinitionLog, undo: UndoLog, dump: Dump) -> None:
        self._log = log
        self._undo = undo
        self._dump = dump
        self._numbers: dict[tuple[Any, ...], int] = {}  # by `Options`, and by fields as sent
        self._sent: dict[int, tuple[Any, ...]] = {}  # fields as sent, by number
        self._given: dict[int, Options] = {}  # the first options sent so, by number

    def __contains__(self, number: int) -> bool:
        return number in self._sent

    def number(self, options: Options) -> int:
        """Return the number, leased, of options; the same for equal ones.

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
        # A function made again for each call is sent alike each time: one is kept.
        if number not in self._given:
            self._undo.set(self._given, int(number), options)
            self._undo.set(self._numbers, options, int(number))
        return number

    def adopt(self, sent: Sequence[Any], lines: Sequence[int]) -> int:
        """Return the number, leased, of options as they are sent.

        Args:
            sent: The fields of `Options`, with the pickle in place of a `Retry`.
            lines: Leases of the lines that the pickle names.
        """
        key = tuple(sent)
        number = self._numbers.get(key)
        if number is None:
            number = self._log.write(OPTIONS, *key, names=lines)
            self._undo.set(self._numbers, key, number)
            self._undo.set(self._sent, number, key)
        return self._log.lease(number)

    def name(self, number: int) -> str | None:
        """Return the name option of a number, None if there is none."""
        name: str | None = self._sent[number][0]
        return name

    def drop(self, number: int) -> None:
        """Forget options that no worker knows any more."""
        del self._numbers[self._sent.pop(number)]
        given = self._given.pop(number, None)
        if given is not None:
            del self._numbers[given]
