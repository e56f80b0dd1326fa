"""Serves requests of tasks to their manager: new tasks, and cancellations.

    a task in this process ─► schedule_inside ───────────────────┬─► link
    a task in a worker ─► its upstream ═ INSIDE ═► asked_inside ─┤
                                                                 └─► once closed: the store alone

Once the manager is closed, tasks that are not durable are refused or dropped. Durable ones go into
the file, so that a chain of tasks goes on in the next host.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta
from typing import Any

from .. import registry
from .._scheduling.coroutines import close_refused, close_unstarted
from .._shipping.hostcatalog import HostCatalog
from .._shipping.hostshipping import adopt_call
from .._transport.entry import InsideRequest
from ..errors import UnknownTask
from ..options import TaskOptions, read_id
from ..task import TaskRef
from .link import Link
from .router import Router

log: logging.Logger = logging.getLogger("aioscheduler")

NOWHERE = (1 << 64) - 1
"""Stands for the number of a task that is only in the store, for the next host."""


class HostUpstream:
    """Serves a manager's proxy in this process (`inside.Upstream`), and requests of workers.

    Args:
        manager: The manager's id.
        router: Places tasks.
    """

    def __init__(self, manager: str, router: Router) -> None:
        self._manager = manager
        self._router = router

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
        options: TaskOptions,
        id_: str | None,
        replace: bool,
    ) -> TaskRef:
        """Schedule a task for a task of this process."""
        router, keeper = self._router, self._router.keeper
        durable = registry.of_coroutine(coro)
        try:
            if durable is None or keeper is None:
                router.check_open()
            due = router.due(when)
            place = router.placement.place_near(key, 0, 0 if origin is None else origin.scheduler)
            if id_ is not None or replace is not False:
                id_ = read_id(id_, replace)
            call, draft = router.take_once(coro, due, key, options, id_, None, durable)
            known = None if id_ is None else router.known(id_)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        if known is not None and not replace:
            close_unstarted(coro)
            task = router.handle(known)
        elif router.closed is not None and draft is not None and keeper is not None:
            router.dispossess(known)
            keeper.intake.leave(due, draft, replace)  # the next host goes on with it
            return TaskRef(self._manager, 0, place, NOWHERE)
        else:
            task = router.schedule_as(id_, known, place, due, due, call, draft, replace)
        ref = task.ref
        assert ref is not None
        return ref

    def cancel_inside(self, ref: TaskRef) -> bool:
        """Cancel a task for a task of this process."""
        link, scheduler, number = self._router.locate(ref)
        return link.cancel(scheduler, number)

    def asked_inside(
        self, links: Sequence[Link], catalog: HostCatalog, what: str, *fields: Any
    ) -> None:
        """Carry out a request of a task in a worker, with the fields of the worker's `_ask`."""
        router, keeper = self._router, self._router.keeper
        if what == "cancel":
            try:
                self.cancel_inside(TaskRef(*fields))
            except UnknownTask as error:  # of another store, which no worker knows
                log.warning("a task has requested a cancellation: %s", error)
            return
        asked = InsideRequest(*fields)
        draft = None
        if asked.durable is not None and keeper is not None:
            draft = keeper.drafts.draft_inside(asked)
            keeper.free(asked.id)
        if router.closed is not None and draft is None:
            return
        known = None if asked.id is None else router.known(asked.id)
        if known is not None and not asked.replace:
            if known[0] < 0 and keeper is not None:
                keeper.shelf.held.lead(asked.alias, known[2])
            else:
                router.ids.lead(asked.alias, known)
            return
        call: Any = None if draft is not None else adopt_call(catalog, asked)
        sure = router.is_sure(known)
        router.dispossess(known)
        if draft is not None and keeper is not None:
            if router.closed is not None:
                keeper.intake.leave(asked.due, draft, asked.replace)  # the next host goes on
                return
            if keeper.is_far(asked.due):
                keeper.shelf.adopt(asked.due, draft, asked.alias, asked.replace, sure)
                return
            call = keeper.calls.make(draft.stored, asked.due)
        place, placement = asked.place, router.placement
        placement.added(place)
        worker, scheduler = placement.worker_of[place], placement.scheduler_of[place]
        own = links[worker].adopt(scheduler, asked.due, call, asked.alias)
        if asked.id is not None:
            router.ids.give(asked.id, (worker, scheduler, own))
        if draft is not None and keeper is not None:
            keeper.intake.enter(worker, own, asked.due, draft, asked.replace, sure)
