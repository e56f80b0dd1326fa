"""Requests of tasks to their manager, before its end and after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import reminders
from stores import TrickyStore

from aioscheduler._routing import shelfhandles
from aioscheduler._routing.hostupstream import NOWHERE, HostUpstream
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.entry import InsideRequest
from aioscheduler.errors import ManagerClosed, NotDurable, UnknownTask
from aioscheduler.task import State, TaskRef
from aioscheduler.testing import FakeClock, FakeManager

SECOND = timedelta(seconds=1)


class Rig:
    """A manager with a store, and its upstream; `close` only simulates its end."""

    def __init__(self, manager: FakeManager, store: TrickyStore) -> None:
        self.manager, self.store = manager, store
        self.router = manager._router
        self.upstream = HostUpstream("m", self.router)
        self.catalog = HostCatalog()

    def schedule(self, coro: Any, when: Any = SECOND, **more: Any) -> TaskRef:
        given = {"key": None, "origin": None, "options": {}, "id_": None, "replace": False} | more
        return self.upstream.schedule_inside(coro, when, **given)

    def ask(
        self, value: Any = 7, alias: int = 1 << 48, when: timedelta = SECOND, **more: Any
    ) -> None:
        due = self.router.due(when)
        fields = {
            "function": None,
            "payload": wire.pack([value]),
            "durable": ("test.note", "reminders:note", False, None),
            "id": None,
            "replace": False,
        } | more
        asked = InsideRequest(
            *(0, due, fields["function"], fields["payload"], (), None, None, alias),
            *(fields["id"], fields["replace"], fields["durable"]),
        )
        self.upstream.asked_inside(self.router.links, self.catalog, "schedule", *asked)

    async def rows(self) -> dict[str | None, Any]:
        """Return the payloads in the file, by id."""
        await self.manager.sync()
        return {row.id: wire.unpack(row.payload)[0] for row in self.store.rows()}

    def close(self) -> None:
        """End the manager, as far as the router is concerned, and leave pending tasks."""
        self.router.closed = ManagerClosed("this manager was closed")
        self.keep()

    def keep(self) -> None:
        keeper = self.router.keeper
        assert keeper is not None
        for keeping in keeper.keepings:
            keeping.ended(list(keeping.kept), State.KEPT)
        self.router.ids.ended(0, list(self.router.ids.of[0]))


@pytest.fixture
async def local() -> AsyncIterator[Rig]:
    store = TrickyStore()
    async with FakeClock().manager(3, store=store, workers=0) as manager:
        yield Rig(manager, store)


@pytest.fixture
async def remote() -> AsyncIterator[Rig]:
    store = TrickyStore()
    async with FakeClock().manager(1, store=store, workers=1) as manager:
        yield Rig(manager, store)


# ---- from this process


async def test_what_a_task_schedules_is_in_the_file(local: Rig) -> None:
    ref = local.schedule(reminders.note(1), origin=TaskRef("m", 0, 2, 9))
    at = local.router.locate(ref)
    assert at[:2] == (local.router.links[0], 2)  # on the scheduler of the task that scheduled it
    assert ref.is_durable
    local.schedule(reminders.note(2), id_="a")
    assert await local.rows() == {None: 1, "a": 2}
    assert local.schedule(reminders.note(3), id_="a") == local.schedule(reminders.note(4), id_="a")
    local.schedule(reminders.note(5), id_="a", replace=True)
    assert await local.rows() == {None: 1, "a": 5}
    assert local.upstream.cancel_inside(ref)
    assert await local.rows() == {"a": 5}
    with pytest.raises(UnknownTask):
        local.upstream.cancel_inside(ref._replace(worker=3))
    with pytest.raises(UnknownTask):
        local.upstream.cancel_inside(ref._replace(manager="of another store"))


async def test_a_call_that_cannot_be_kept_is_refused_here_too(local: Rig) -> None:
    with pytest.raises(NotDurable):
        local.schedule(reminders.note(lambda: 1))
    with pytest.raises(ValueError, match="replace"):
        local.schedule(reminders.note(1), replace=True)
    assert await local.rows() == {}


async def test_after_the_end_what_is_durable_is_left_for_the_next_host(local: Rig) -> None:
    local.schedule(reminders.note("kept"), id_="a")
    local.schedule(reminders.note("too"), id_="b")
    await local.manager.sync()
    local.close()
    with pytest.raises(ManagerClosed):
        local.schedule(plain())
    assert local.schedule(reminders.note(1)).number == NOWHERE
    local.schedule(reminders.note(2), id_="a")  # the id is taken
    local.schedule(reminders.note(3), id_="b", replace=True)
    local.schedule(reminders.note(4), id_="b", replace=True)
    local.schedule(reminders.note(5), id_="b")
    local.schedule(reminders.note(6), id_="c")
    assert await local.rows() == {None: 1, "a": "kept", "b": 4, "c": 6}


async def plain() -> None: ...


# ---- from workers


async def test_what_a_worker_asks_is_in_the_file_and_known_by_its_alias(remote: Rig) -> None:
    remote.ask(1)
    remote.ask(2, 2 << 48, id="a")
    assert await remote.rows() == {None: 1, "a": 2}
    remote.ask(3, 3 << 48, id="a")
    assert await remote.rows() == {None: 1, "a": 2}
    found = remote.manager.task(TaskRef(remote.manager._id, 0, 0, 3 << 48))
    assert found.id == "a"  # the alias leads there
    remote.ask(4, 4 << 48, id="a", replace=True)
    assert await remote.rows() == {None: 1, "a": 4}
    links = remote.router.links
    remote.upstream.asked_inside(links, remote.catalog, "cancel", remote.manager._id, 0, 0, 1 << 48)
    assert await remote.rows() == {"a": 4}
    ref = found.ref
    assert ref.is_durable
    remote.upstream.asked_inside(links, remote.catalog, "cancel", *ref)
    assert await remote.rows() == ({"a": 4} if found.done() else {})


async def test_a_cancellation_for_another_store_is_logged(
    remote: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    remote.ask(1)
    other = "51" * 16
    remote.upstream.asked_inside(remote.router.links, remote.catalog, "cancel", other, -1, -1, 1)
    assert await remote.rows() == {None: 1}
    (message,) = caplog.messages
    assert message.startswith("a task has requested a cancellation: 51515151/row 1 is a task of")


@pytest.mark.parametrize("id_", [None, "a"])
async def test_what_is_far_off_is_only_in_the_file_and_known_all_the_same(
    remote: Rig, id_: str | None
) -> None:
    keeper = remote.router.keeper
    assert keeper is not None
    keeper.where.horizon.reached = (remote.router.due(SECOND) - 1, 0)
    remote.ask(1, 1 << 48, id=id_)
    assert await remote.rows() == {id_: 1}
    assert [len(keeping.kept) for keeping in keeper.keepings] == [0]
    assert len(remote.manager) == 1
    links = remote.router.links
    if id_ is not None:  # a second request gets the same task
        remote.ask(2, 2 << 48, id=id_)
        assert await remote.rows() == {id_: 1}
        remote.upstream.asked_inside(
            links, remote.catalog, "cancel", remote.manager._id, 0, 0, 2 << 48
        )
    else:
        remote.upstream.asked_inside(
            links, remote.catalog, "cancel", remote.manager._id, 0, 0, 1 << 48
        )
    assert await remote.rows() == {}
    assert len(remote.manager) == 0


async def test_after_the_end_a_worker_s_durable_tasks_are_left_and_others_are_none(
    remote: Rig,
) -> None:
    remote.ask("kept", 1 << 48, id="a")
    await remote.manager.sync()
    remote.close()
    before = remote.router.placement.all_loads
    remote.ask(1, 2 << 48, durable=None, function="asyncio:sleep")
    remote.ask(2, 3 << 48)
    remote.ask(3, 4 << 48, id="a")
    assert await remote.rows() == {None: 2, "a": "kept"}
    remote.ask(4, 5 << 48, id="a", replace=True)
    assert await remote.rows() == {None: 2, "a": 4}
    assert remote.router.placement.all_loads == before


async def test_a_reference_to_one_of_too_many_far_off_tasks_says_so(
    remote: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shelfhandles, "MOST_ALIASES", 2)
    first = 1 << 48
    for n in range(4):
        remote.ask(n, first + n, timedelta(days=99))
    remote.ask("near", first + 4)
    refs = [TaskRef(remote.router._manager, 0, 0, first + n) for n in range(6)]
    manager = remote.manager
    asks: list[Any] = [manager.task, manager.cancel, lambda ref: manager.reschedule(ref, SECOND)]
    for ask in asks:
        for ref in refs[:2]:
            with pytest.raises(
                UnknownTask, match="no longer leads anywhere.* Give such a task an id"
            ):
                ask(ref)
    remote.upstream.asked_inside(remote.router.links, remote.catalog, "cancel", *refs[0])
    assert "a task has requested a cancellation" in caplog.text
    assert "no longer leads anywhere" in caplog.text
    assert [remote.manager.cancel(ref) for ref in refs[2:]] == [True, True, True, False]
    assert await remote.rows() == {None: 1}  # it can no longer be addressed


async def test_a_near_task_is_found_by_a_reference_older_than_those_that_are_kept(
    remote: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelfhandles, "MOST_ALIASES", 1)
    remote.ask("near", 1 << 48)
    for n in range(1, 4):
        remote.ask(n, (1 << 48) + n, timedelta(days=99))
    assert remote.manager.cancel(TaskRef(remote.router._manager, 0, 0, 1 << 48))
