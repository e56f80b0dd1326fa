"""Tasks that are in the file already: admitted when a host starts, and requeued dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from .._durable.records import Letter
from ..task import Task
from .ids import Address
from .keeper import Keeper
from .link import Link
from .restoring import Early, Share
from .router import Router


class Admission:
    """Passes tasks of the file to the links (`restoring.Admission`).

    Args:
        router: Places them.
        keeper: Keeps the file.
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
    def links(self) -> Sequence[Link]:
        """The links, by worker."""
        return self._router.links

    def locate(self, worker: int, number: int) -> tuple[Link, int]:
        """Return the link of a task that has not ended, and its scheduler there."""
        link = self._router.links[worker]
        scheduler = link.scheduler_of(number)
        assert scheduler is not None
        return link, scheduler

    def find(self, id_: str, before: int) -> Address | None:
        """Return the task at a link that has an id, if its row is below `before`."""
        known = self._router.ids.find(id_)
        if known is None:
            return None
        kept = self._keeper.keepings[known[0]].kept.get(known[2])
        return known if kept is not None and 0 <= kept.row < before else None

    def dispossess(self, address: Address) -> None:
        """Take the id from a task at a link."""
        self._router.dispossess(address)

    def lead(self, alias: int, address: Address) -> None:
        """Make an alias lead to a task at a link."""
        self._router.ids.lead(alias, address)

    async def flush(self) -> None:
        """Wait until the links have room."""
        await asyncio.sleep(0)
        for link in self._router.links:
            await link.flush()

    def count_shelved(self, change: int) -> None:
        """Change the count of tasks that are only in the file."""
        self._router.placement.count_shelved(change)

    @property
    def is_over(self) -> bool:
        """Whether no more tasks may begin."""
        return self._router.closed is not None

    def admit(
        self, due: int, key: str | bytes | int | None, id_: str | None, call: Any
    ) -> tuple[int, int]:
        """Admit a task of the file; return its worker and its number there."""
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

    def admit_many(
        self, dues: Sequence[int], function: Any, calls: Sequence[Any], record: Any
    ) -> list[Share]:
        """Admit tasks of one function that are in the file, in order.

        They are dealt out to all schedulers in turn, so that each runs its own in order.

        Args:
            dues: The due time of each, in nanoseconds since the epoch.
            function: As returned by `make_many`, like the next two.
            calls: One for each task.
            record: One for all.
        """
        placement = self._router.placement
        many = min(len(placement.worker_of), len(dues))
        dealt: dict[int, list[int]] = {}  # by place
        for start in range(many):
            place = placement.choose_freely(None)
            every = range(start, len(dues), many)
            placement.added(place, len(every))
            dealt.setdefault(place, []).extend(every)
        shares = []
        for place, own in dealt.items():
            worker, scheduler = placement.worker_of[place], placement.scheduler_of[place]
            link = self._router.links[worker]
            own.sort()
            for start in range(0, len(own), link.room()):
                some = own[start : start + link.room()]
                each = [dues[index] for index in some], function, [calls[index] for index in some]
                shares.append(Share(worker, link.adopt_many(scheduler, *each, record), some))
        return shares

    def leave_out(self, early: Early) -> Task[Any] | None:
        """Remove an early task that duplicates one of the file; return its handle, if held."""
        worker, number = early.worker, early.number
        self._keeper.keepings[worker].leave_out(number)
        link, scheduler = self.locate(worker, number)
        task = link.detach(scheduler, number)
        link.cancel(scheduler, number)  # even if it was announced
        self._router.ids.release(worker, number)
        return task

    def give_way(self, id_: str, worker: int, admit: Callable[[], bool]) -> None:
        """Replace a task that was scheduled under the id of one in the file by that one."""
        address = self._router.ids.find(id_)
        assert address is not None  # of the new one: it has the id
        task = self._router.links[worker].detach(*address[1:])
        self._router.links[worker].cancel(*address[1:])  # even if it was announced
        is_held = admit()
        known = self._router.ids.find(id_)
        if task is None or known is None:
            return
        link = self._router.links[known[0]]
        other = link.find(*known[1:]) if is_held else None
        if other is None:
            task._kept = self._keeper.keepings[known[0]].kept.get(known[2])
            link.attach(task, *known[1:])
        else:
            task._follow(other)

    def requeue(
        self, letter: Letter, when: datetime | timedelta | None, holder: Task[Any] | None
    ) -> Task[Any]:
        """Schedule the task of a dead letter again; see `Manager.requeue`.

        Args:
            letter: The dead letter.
            when: As for `Manager.requeue`.
            holder: The task that has its id in the file, or had it when the file answered.
        """
        due = self._router.due(when)
        self._keeper.commits.check_room()
        self._keeper.know(letter.id)
        draft = self._keeper.drafts.draft_again(letter)
        if holder is not None or (draft.id and self._router.known(draft.id) is not None):
            raise ValueError(
                f"another task has the id {draft.id!r} now; cancel that one, or discard the letter"
            )
        place = self._router.placement.choose(draft.key)
        self._keeper.free(draft.id)  # written first
        with self._keeper.group.whole():  # both or neither, even if written one by one
            task = self._router.schedule_as(draft.id, None, place, due, due, None, draft, sure=True)
            self._keeper.letters.drop(letter.row, task._kept.row)
        return task
