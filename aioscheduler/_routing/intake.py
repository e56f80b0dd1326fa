"""Durable tasks that links have accepted, on their way into the file.

    enter, enter_many ─┬─► a row of the file, at once
                       └─► early: at a link, without a row until it is known who has its id
    leave ─────────────► a row of the file, for the next host

An early task may turn out to be one of the file. It does not begin before that is known, as tasks
with an id begin only once they are on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat

from .._durable.group import Group, Kept
from .._durable.records import Row
from .commits import Commits
from .drafts import Draft, Drafts
from .keeping import NOT_GIVEN, WITHDRAWN, Keeping
from .lookups import Lookups
from .restoring import Early
from .whereabouts import Whereabouts


class Intake:
    """The intake of one keeper.

    Args:
        group: Gathers changes.
        commits: Writes them.
        drafts: Makes rows.
        keepings: The durable tasks of each link.
        where: Where each task is.
        lookups: Ask the file who has an id.
        strike: End a task that is only in the file.
        join: Merge an early task with one that is only in the file.
        left: Tasks that stay for the next host, by id.

    Attributes:
        is_open: Whether the file is open.
        early: For each id whose holder is not known, the last early task with it.
    """

    def __init__(
        self,
        group: Group,
        commits: Commits,
        drafts: Drafts,
        keepings: Sequence[Keeping],
        where: Whereabouts,
        lookups: Lookups,
        strike: Callable[[Row], object],
        join: Callable[[Early, Row], object],
        left: dict[str, Kept],
    ) -> None:
        self.is_open = False
        self.early: dict[str, Early] = {}
        self._before: list[Early] = []  # scheduled before the file was open
        self._left = left
        self._group = group
        self._commits = commits
        self._drafts = drafts
        self._keepings = keepings
        self._where = where
        self._lookups = lookups
        self._strike: Callable[[Row], object] = strike
        self._join: Callable[[Early, Row], object] = join

    def open(self) -> None:
        """Go on with tasks scheduled before the file was open; it is now."""
        self.is_open = True
        before, self._before = self._before, []
        for early in before:
            if early.draft.id is not None:
                self._ask(early)
            else:
                self._settle(early)

    def _ask(self, early: Early) -> None:
        assert early.draft.id is not None
        self._lookups.by_id(early.draft.id, partial(self._answered, early))

    def _answered(self, early: Early, row: Row | None) -> None:
        """Go on with an early task, given the row that has its id in the file."""
        assert early.draft.id is not None
        last = self.early[early.draft.id]
        if last is early:
            del self.early[early.draft.id]
        if row is not None and (last.replace or last.kept.row == WITHDRAWN):
            self._strike(row)
        elif row is not None:
            self._join(last, row)
        self._settle(early)

    def _settle(self, early: Early) -> None:
        """Put an early task into the file, unless it has ended or is in the file already."""
        if self._keepings[early.worker].kept.get(early.number) is early.kept:
            row = self._drafts.row(self._group.new_row(), early.kept.due, early.draft)
            self._put(early.kept, row)
            self._keep(early.kept, early.worker, early.number)

    def leave(self, due: int, draft: Draft, replace: bool) -> None:
        """Put a task into the file for the next host to run, as this one ends.

        If one with its id stays there already, it replaces that (`replace`), or is dropped.
        """
        if draft.id is None or self._where.horizon.is_whole:
            self._leave(due, draft, replace, None)
        else:
            self._lookups.by_id(draft.id, partial(self._leave, due, draft, replace))

    def _leave(self, due: int, draft: Draft, replace: bool, found: Row | None) -> None:
        before = None if draft.id is None else self._left.get(draft.id)
        if before is None and found is not None:
            before = Kept.of(found)
        if before is not None:
            if not replace:
                return
            self._group.strike(before)
            self._where.horizon.strike(before.row, self._group.stamp)
        row = self._drafts.row(self._group.new_row(), due, draft)
        kept = Kept.of(row)
        self._put(kept, row)
        if draft.id is not None:
            self._left[draft.id] = kept

    def enter(
        self,
        worker: int,
        number: int,
        due: int,
        draft: Draft,
        replace: bool = False,
        sure: bool = False,
    ) -> Kept:
        """Put a task that a link has accepted into the file.

        Args:
            worker: Its worker.
            number: Its number there.
            due: Its due time, in nanoseconds since the epoch.
            draft: Its draft.
            replace: Whether it takes its id from another task.
            sure: Whether it is known that no other task has its id.
        """
        sure |= draft.id is None or self._where.horizon.is_whole
        if self.is_open and sure:
            if draft.id in self._left:  # as this host goes on after all
                self._group.strike(self._left.pop(draft.id))
            row = self._drafts.row(self._group.new_row(), due, draft)
            kept = Kept.of(row)
            self._put(kept, row)
            self._keep(kept, worker, number)
        else:
            kept = self._enter_early(worker, number, due, draft, replace)
        kept.once = draft.stored.function.once
        self._keepings[worker].kept[number] = kept
        return kept

    def _enter_early(self, worker: int, number: int, due: int, draft: Draft, replace: bool) -> Kept:
        kept = Kept.of(Row(NOT_GIVEN, due, 0, b"", draft.key, draft.id))
        before = None if draft.id is None else self.early.get(draft.id)
        if before is not None:  # that one has ended, or loses the id
            replace |= before.replace or before.kept.row == WITHDRAWN
        early = Early(kept, draft, worker, number, due, replace)
        if draft.id is not None:
            self.early[draft.id] = early
        if self.is_open:
            self._ask(early)
        else:
            self._before.append(early)
        return kept

    def enter_many(
        self,
        worker: int,
        first: int,
        dues: int | Sequence[int],
        payloads: Sequence[bytes],
        draft: Draft,
    ) -> None:
        """Put tasks that differ only in arguments, and maybe due times, into the file."""
        if not self.is_open:
            each = repeat(dues) if isinstance(dues, int) else dues
            for number, (due, payload) in enumerate(zip(each, payloads, strict=False), first):
                own = draft._replace(stored=draft.stored._replace(payload=payload))
                self.enter(worker, number, due, own)
            return
        alike = self._drafts.row(NOT_GIVEN, 0, draft)
        made = self._group.put_many(alike, dues, payloads)
        if draft.stored.function.once:
            for kept in made:
                kept.once = True
        self._keepings[worker].kept.update(enumerate(made, first))
        self._where.add_many(range(made[0].row, made[0].row + len(made)), worker, first)
        self._commits.soon()

    def _keep(self, kept: Kept, worker: int, number: int) -> None:
        self._where.add(kept.row, worker, number)
        self._where.horizon.keep(kept.due, kept.row)

    def _put(self, kept: Kept, row: Row) -> None:
        kept.row = row.row
        self._group.put(kept, row)
        self._commits.soon()
