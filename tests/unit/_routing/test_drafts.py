"""Durable tasks before they have a link, and as rows."""

from __future__ import annotations

from typing import Any

import pytest
import reminders

from aioscheduler._durable.group import Group
from aioscheduler._durable.records import Function, Letter, Reason, Row
from aioscheduler._routing import drafts as module
from aioscheduler._routing.drafts import Draft, Drafts
from aioscheduler._routing.functions import Functions
from aioscheduler._routing.storedcalls import Notes, Stored
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.entry import InsideRequest
from aioscheduler.errors import NotDurable
from aioscheduler.registry import Durable, find

SEVEN = wire.pack([7])


def durable(name: str) -> Durable:
    found = find(name)
    assert found is not None
    return found


class Rig:
    def __init__(self) -> None:
        catalog = HostCatalog()
        catalog.propagation = propagation = Propagation((reminders.request_id,))
        shipper = HostShipper(catalog)
        self.functions = Functions(Group(1))
        self.functions.read([Function(9, "gone", "m:gone", once=True)])
        notes = Notes(propagation, shipper, WorkerCatalog())
        self.drafts = Drafts(shipper, self.functions, notes)

    def draft(self, coro: Any, name: str, id_: str | None = None, **more: Any) -> Draft:
        given = {"label": None, "captured": None, "key": None} | more
        return self.drafts.draft(coro, durable(name), **given, id_=id_)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_coroutine_is_taken_apart_and_closed(rig: Rig) -> None:
    coro: Any = reminders.note(7)
    draft = rig.draft(coro, "test.note", label="mine", key="k", captured=[1, "r1"])
    assert coro.cr_frame is None
    stored = draft.stored
    assert (stored.payload, stored.label, stored.confirmed) == (SEVEN, "mine", 0)
    assert (draft.key, draft.id) == ("k", None)
    row = rig.drafts.row(5, 77, draft)
    assert row == Row(5, 77, 10, SEVEN, "k", None, row.options)
    assert rig.drafts._notes.read(row.options) == ("mine", stored.captured)
    assert rig.drafts.row(6, 0, draft).function == 10


def test_what_has_an_id_or_begins_once_waits_for_the_record(rig: Rig) -> None:
    assert rig.draft(reminders.note(7), "test.note", id_="a").stored.confirmed == 1
    assert rig.draft(reminders.once(7), "test.once").stored.confirmed == wire.FEW
    assert rig.drafts.draft_many(durable("test.once"), None, None, "k").stored.confirmed == wire.FEW
    assert rig.drafts.draft_many(durable("test.note"), None, None, "k").stored.confirmed == 0


@pytest.mark.parametrize(("key", "id_"), [("k" * (1 << 20) + "k", None), (None, "i" * (2 << 20))])
def test_names_that_take_long_are_refused(rig: Rig, key: Any, id_: Any) -> None:
    coro: Any = reminders.note(7)
    with pytest.raises(NotDurable, match="use a hash of it"):
        rig.drafts.draft(coro, durable("test.note"), None, None, key, id_)
    assert coro.cr_frame is not None
    coro.close()


def test_what_cannot_be_kept_is_refused_and_left_as_it_was(rig: Rig) -> None:
    class Local:
        pass

    coro: Any = reminders.note(Local())
    with pytest.raises(NotDurable, match=r"test\.note"):
        rig.draft(coro, "test.note")
    assert coro.cr_frame is not None
    coro.close()
    coro = reminders.note(7)
    with pytest.raises(NotDurable):
        rig.draft(coro, "test.note", captured=[1, Local()])
    coro.close()
    draft = rig.drafts.draft_many(durable("test.note"), None, None, None)
    with pytest.raises(NotDurable, match="item 3: "):
        rig.drafts.take_some(draft, [(1,), (2,), (3,), (Local(),)], 1, 10)


def test_what_no_row_takes_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(NotDurable, match="write them to a file, and give the task its path"):
        rig.draft(reminders.note("x" * 200), "test.note")
    draft = rig.drafts.draft_many(durable("test.note"), None, None, None)
    with pytest.raises(NotDurable, match=r"item 1: .* the limit of a store is 100 a task"):
        rig.drafts.take_some(draft, [(1,), ("x" * 200,)], 0, 10)


def test_many_are_taken_up_to_the_room_and_to_a_frame(rig: Rig) -> None:
    draft = rig.drafts.draft_many(durable("test.note"), None, None, None)
    calls = [(n,) for n in range(10)]
    assert rig.drafts.take_some(draft, calls, 3, 4) == [wire.pack([n]) for n in range(3, 7)]
    large = [("x" * 40_000,)] * 5
    assert [len(rig.drafts.take_some(draft, large, start, 9)) for start in (0, 3, 4)] == [2, 2, 1]


def test_what_a_worker_asks_is_of_the_function_that_the_host_knows(rig: Rig) -> None:
    asked = InsideRequest(
        *(0, 77, None, SEVEN, (), None, b"c", 1 << 48, "a", False),
        durable=("test.note", "worker:note", True, "mine"),
        key="k",
    )
    draft = rig.drafts.draft_inside(asked)
    assert draft == Draft(Stored(durable("test.note"), SEVEN, "mine", b"c", 1), "k", "a")
    strange = asked._replace(durable=("new", "m:new", True, None), id=None)
    draft = rig.drafts.draft_inside(strange)
    assert draft.stored == Stored(Function(0, "new", "m:new", True), SEVEN, None, b"c", wire.FEW)
    assert rig.drafts.row(5, 77, draft).function == 10
    plain = asked._replace(durable=("new", "m:new", False, None), id=None)
    assert rig.drafts.draft_inside(plain).stored.confirmed == 0


def test_a_letter_becomes_a_task_again(rig: Rig) -> None:
    first = rig.draft(reminders.note(7), "test.note", label="mine", captured=[1, "r1"])
    row = rig.drafts.row(5, 77, first)
    letter = Letter(
        *(5, 77, row.function, "test.note", SEVEN, "k", "a", row.options, 4, Reason.LOST, "", 9)
    )
    draft = rig.drafts.draft_again(letter)
    assert draft == Draft(first.stored._replace(confirmed=1), "k", "a")
    draft = rig.drafts.draft_again(letter._replace(function=9, id=None, options=None))
    assert draft.stored == Stored(Function(9, "gone", "m:gone", True), SEVEN, confirmed=wire.FEW)
