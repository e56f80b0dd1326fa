"""Callables that a worker is sent once, however often they are mapped.

They are recognised by the digest of their pickle. The last few that no task uses any more stay, as
they may be mapped again.
"""

from __future__ import annotations

from hashlib import blake2b

from .._transport.definitionlog import DefinitionLog
from .definitions import VALUE
from .undolog import UndoLog

IDLE_VALUES = 4  # values kept though no task uses them


class Values:
    """The callables in a log.

    Args:
        log: The log, with a line for each.
        undo: Records the changes.
    """

    def __init__(self, log: DefinitionLog, undo: UndoLog) -> None:
        self._log = log
        self._undo = undo
        self._numbers: dict[bytes, int] = {}  # by digest
        self._digests: dict[int, bytes] = {}  # the reverse
        self._idle: dict[int, None] = {}  # unused ones, the longest idle first

    def __contains__(self, number: int) -> bool:
        return number in self._digests

    def number(self, payload: bytes, lines: list[int]) -> int:
        """Return the number, leased, of the pickle of a callable.

        Args:
            payload: The pickle.
            lines: The lines that it names.
        """
        digest = blake2b(payload, digest_size=16).digest()
        number = self._numbers.get(digest)
        if number is None:
            number = self._log.write(VALUE, payload, names=lines)
            self._undo.set(self._numbers, digest, number)
            self._undo.set(self._digests, number, digest)
        self._idle.pop(number, None)
        return self._log.lease(number)

    def rest(self, number: int) -> None:
        """Note that nothing uses a value any more; the one idle longest may be retired."""
        self._idle[number] = None
        if len(self._idle) > IDLE_VALUES:
            longest = next(iter(self._idle))
            del self._idle[longest], self._numbers[self._digests.pop(longest)]
            self._log.retire(longest)
