"""Tasks of a file that wait for their functions, which a script may yet define.

    add ─► resolve, once a tick ─┬─► defined by now: admitted
                                 └─► not defined for a minute, and due: given up
    claim ─► its id is needed: given up at once

Only functions of `__main__` are waited for: those of modules are imported where they run.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable

from .._durable.group import Group, Kept
from .._durable.records import LAST, Function, Row
from .._scheduling.clock import SECOND
from ..registry import Durable
from .functions import Functions
from .whereabouts import Whereabouts

log: logging.Logger = logging.getLogger("aioscheduler")

MAIN_PATIENCE = 60 * SECOND
"""Nanoseconds after the start within which a script may define the functions of its tasks."""

_MOST_NAMES = 10  # of functions, in one line of the log


class Undefined:
    """The tasks of one file that wait for their functions.

    Args:
        functions: The functions of the file.
        group: Gathers changes.
        where: Where each task is; these are in memory, whenever they are due.
        now: The present in nanoseconds since the epoch.
        admit: Called with a task whose function is now defined.
        give_up: Called with a task that stops waiting, and what the file knows of its function.
    """

    def __init__(
        self,
        functions: Functions,
        group: Group,
        where: Whereabouts,
        now: int,
        admit: Callable[[Row, Kept, Durable], object],
        give_up: Callable[[Row, Kept, Function], object],
    ) -> None:
        self._functions = functions
        self._group = group
        self._where = where
        self._admit: Callable[[Row, Kept, Durable], object] = admit
        self._give_up: Callable[[Row, Kept, Function], object] = give_up
        # By the function's number, in order of their due times when they were added.
        self._lines: dict[int, deque[int]] = {}
        self._waiting: dict[int, tuple[Row, Kept, Function]] = {}  # by row
        self._ids: dict[str, int] = {}
        self._known_until = now + MAIN_PATIENCE
        self._log_at: int | None = now + SECOND  # when the log names them; None: it has

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, row: int) -> bool:
        return row in self._waiting

    @property
    def leaves_suspects(self) -> bool:
        """Whether one of them may have ended an earlier host, though its row does not show it."""
        return any(kept.suspect and not kept.losses for _, kept, _ in self._waiting.values())

    def add(self, row: Row, kept: Kept, function: Function) -> None:
        """Let a task wait."""
        self._lines.setdefault(function.number, deque()).append(row.row)
        self._waiting[row.row] = row, kept, function
        self._where.horizon.keep(LAST[0], row.row)  # wherever it may be moved
        if row.id is not None:
            self._ids[row.id] = row.row

    def take(self, row: int) -> tuple[Row, Kept, Function]:
        """Remove and return a task."""
        waiting = self._waiting.pop(row)
        self._where.horizon.ahead.discard(row)
        if waiting[0].id is not None:
            self._ids.pop(waiting[0].id, None)
        return waiting

    def move(self, row: int, due: int) -> Row:
        """Reschedule a task; return its previous row."""
        known, kept, function = self._waiting[row]
        kept.due, kept.given = due, None
        self._waiting[row] = known._replace(due=due, given=None), kept, function
        self._group.change(kept)
        return known

    def claim(self, id_: str) -> None:
        """Free an id: the task that has it is given up."""
        row = self._ids.get(id_)
        if row is not None:
            self._give_up(*self.take(row))

    def resolve(self, now: int) -> bool:
        """Admit tasks whose functions are registered by now; give up those that waited long enough.

        Returns:
            Whether anything has changed.
        """
        if not self._lines:
            return False
        changed = False
        for number, line in list(self._lines.items()):
            function = self._functions.find(number)
            while line and function is not None:
                if line[0] in self._waiting:
                    unknown = isinstance(function, Function)
                    if unknown and not self._known_until <= now >= self._waiting[line[0]][0].due:
                        break
                    row, kept, _ = self.take(line[0])
                    changed = True
                    if isinstance(function, Function):
                        self._give_up(row, kept, function)
                    else:
                        self._admit(row, kept, function)
                line.popleft()
            if not line:
                del self._lines[number]
        if self._log_at is not None and now >= self._log_at:
            self._log_at = None
            self._log_waiting()
        return changed

    def _log_waiting(self) -> None:
        """Log which functions are waited for: this may not be the script that has them."""
        waiting = Counter(function.name for _, _, function in self._waiting.values())
        if waiting:
            names = [f"{name!r} ({count:,})" for name, count in waiting.most_common(_MOST_NAMES)]
            more = len(waiting) - len(names)
            log.warning(
                "durable tasks wait for functions of a script that this program has not defined: "
                "%s%s. They are looked for until %d s after the start; then their tasks become "
                "dead letters (unknown) when they are due. Import or define them by then, or start "
                "the script that does; until then join() and len() do not count these tasks",
                ", ".join(names),
                f" and {more:,} more" if more else "",
                MAIN_PATIENCE // SECOND,
            )
