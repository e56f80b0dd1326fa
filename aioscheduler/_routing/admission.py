"""Tasks that the file has already: admitted at the start of a host, and put back from letters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from .._durable.records import Letter
from ..task import Task
from .keeper import Keeper
from .router import Router


class Admission:
    """Gives tasks of the file to the links (`restoring.Admission`).

    Args:
        router: Places them.
        keeper: Has the file.
        admitted: Called with the id of each task that is admitted and has one.
    """

    def __init__(
        self,
        router: Router,
        keeper: Keeper,
        admitted: Callable[[str], None] = lambda id_: None,
    ) -> None:
        self._router = router
        self._keeper = keeper
        self._admitted = admitted

    @property
    def is_over(self) -> bool:
        """Whether no task is to begin any more."""
        return self._router.closed is not None

    def admit(
        self, due: int, key: str | bytes | int | None, id_: str | None, call: Any
    ) -> tuple[int, int]:
        """Accepts a task that is in the file already; gives its worker and its number there."""
        place = self._router.placement.choose_freely(key)
        worker, scheduler = (
            self._router.placement.worker_of[place],
            self._router.placement.scheduler_of[place],
        )
        number = self._router.link_of(place, 1).adopt(scheduler, due, call, None)
        if id_ is not None:
            self._router.ids.give(id_, (worker, scheduler, number))
            self._admitted(id_)
        return worker, number

    def give_way(self, id_: str, worker: int, admit: Callable[[], None]) -> None:
        """Has a task that was scheduled under the id of one in the file be that one."""
        address = self._router.ids.find(id_)
        assert address is not None  # of the new one: it has the id
        task = self._router.links[worker].detach(*address[1:])
        self._router.links[worker].withdraw(*address[1:])
        admit()
        known = self._router.ids.find(id_)
        if task is not None and known is not None:
            self._router.links[known[0]].attach(task, *known[1:])

    def requeue(self, letter: Letter, when: datetime | timedelta | None) -> Task[Any]:
        """Schedules the task of a dead letter anew; see `Manager.requeue`."""
        due = self._router.due(when)
        self._keeper.commits.check_room()
        self._keeper.know(letter.id)
        draft = self._keeper.drafts.draft_again(letter)
        if draft.id is not None and self._router.ids.find(draft.id) is not None:
            raise ValueError(
                f"another task has the id {draft.id!r} now; cancel that one, or discard the letter"
            )
        place = self._router.placement.choose(draft.key)
        call = self._keeper.calls.make(draft.stored, due)
        task = self._router.schedule_as(draft.id, None, place, due, due, call, draft)
        self._keeper.letters.drop(letter.row)  # behind what takes its place
        return task
