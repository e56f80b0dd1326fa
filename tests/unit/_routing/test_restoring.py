"""The tasks of the file when a host starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
import reminders
import stores
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler import registry
from aioscheduler._durable.group import Kept
from aioscheduler._durable.records import Begun, Function, Opening, Reason, Row
from aioscheduler._routing.burials import Burials
from aioscheduler._routing.drafts import Draft
from aioscheduler._routing.functions import Functions
from aioscheduler._routing.keeping import NOT_GIVEN, WITHDRAWN
from aioscheduler._routing.opened import HEARTBEAT_SLACK
from aioscheduler._routing.restoring import (
    Early,
    Restoring,
    Share,
)
from aioscheduler._routing.storedcalls import Stored
from aioscheduler._routing.undefined import MAIN_PATIENCE
from aioscheduler._routing.whereabouts import Whereabouts
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._transport import wire

NOW, HEARTBEAT = 10**18, 5 * 10**17
FIRST_ROW = 100  # the first row of this host
FUNCTIONS = [
    Function(1, "test.note", f"{reminders.__name__}:note", once=False),
    Function(2, "test.once", f"{reminders.__name__}:once", once=True),
    Function(3, "test.later", "__main__:later", once=False),
    Function(4, "test.moved", "elsewhere:moved", once=True),
]


FACTS = "begun", "attempt", "failed", "losses", "given", "id", "once", "suspect", "stamp"


class Admitted:
    """Admits tasks, makes their calls, and reads their notes."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Any, str | None, Stored]] = []
        self.given_way: list[tuple[str, int]] = []
        self.is_over = False
        self.kept: dict[int, Kept] = {}
        self.shared: list[int] = []  # how many tasks were admitted at once
        self.held: list[bool] = []  # whether the task of the file has a handle, in `give_way`

    def admit(self, due: int, key: Any, id_: str | None, call: Any) -> tuple[int, int]:
        self.calls.append((due, key, id_, call))
        return 0, len(self.calls) - 1

    def make_many(self, stored: Stored, payloads: list[bytes]) -> tuple[Stored, list[bytes], None]:
        if b"bad" in payloads:
            raise ValueError("no such function")
        return stored, payloads, None

    def admit_many(
        self, dues: Sequence[int], function: Stored, calls: Sequence[bytes], record: None
    ) -> list[Share]:
        shares = [Share(0, 0, list(range(start, len(dues), 3))) for start in range(3)]
        found = []
        for _, _, indexes in shares:
            found.append(Share(0, len(self.calls), indexes))
            self.calls += [
                (dues[index], None, None, function._replace(payload=calls[index]))
                for index in indexes
            ]
        self.shared.append(len(dues))
        return found

    def give_way(self, id_: str, worker: int, admit: Callable[[], bool]) -> None:
        self.given_way.append((id_, worker))
        self.held.append(admit())

    def leave_out(self, number: int) -> None:
        del self.kept[number]

    def make(self, stored: Stored, due: int) -> Stored:
        if stored.payload == b"bad":
            raise ValueError("no such function")
        return stored

    def read(self, note: bytes | None) -> tuple[str | None, bytes | None]:
        return (None, None) if note is None else tuple(wire.unpack(note))


class Held:
    """Holds some tasks that are only in the file.

    Attributes:
        rows: Their rows.
        told: What was reported: which task, how and, for a dead letter, why.
    """

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.told: list[tuple[Any, ...]] = []

    def held_among(self, rows: Sequence[int]) -> Collection[int]:
        return self.rows.intersection(rows)

    def left(self, row: Row, kept: Kept, worker: int, number: int) -> bool:
        assert kept.row == row.row
        self.told.append(("left", row.row, worker, number))
        return row.row in self.rows

    def buried(self, row: int, reason: Reason, text: str) -> None:
        self.told.append(("buried", row, reason))

    def withdrawn(self, row: int) -> None:
        self.told.append(("withdrawn", row))


class Rig(stores.Rig):
    def __init__(self, clean: bool = False, functions: Any = FUNCTIONS) -> None:
        super().__init__()
        self.start()
        links: Any = Admitted()
        self.links = links
        self.where = Whereabouts(2)
        self.shelf = Held()
        table = Functions(self.group)
        table.read(functions)
        self.restoring = Restoring(
            *(
                links,
                self.group,
                Burials(self.group, lambda: NOW, self.commits.has),
                table,
                [links, links],
            ),
            *(links, links, Opening(0, FIRST_ROW, functions, 0, 0, clean, HEARTBEAT), NOW),
            *(self.where, self.shelf),
        )
        self.early: dict[str, Early] = {}

    def take(self, row: int = 1, due: int = NOW, function: int = 1, **more: Any) -> Row:
        taken = Row(row, due, function, b"", **more)
        self.restoring.take(taken, self.early)
        return taken

    def hurry(self, id_: str, replace: bool = False, row: int = NOT_GIVEN) -> Kept:
        """Add a task that was scheduled before the file was open."""
        kept = self.links.kept[77] = Kept.of(Row(row, 5, 0, b"", id=id_))
        draft: Any = Draft(None, None, id_)  # type: ignore[arg-type]
        self.early[id_] = Early(kept, draft, 1, 77, 5, replace)
        return kept

    def written(self) -> Any:
        taken = self.group.take()
        return None if taken is None else taken[0]

    def state(self) -> dict[int, tuple[Any, ...]]:
        """Return the state of each task that is pending at a link."""
        found = {}
        for number, kept in self.links.kept.items():
            assert self.where.find(kept.row) == (0, number)
            facts = {name: getattr(kept, name) for name in ("due", "bucket", *FACTS)}
            found[kept.row] = facts, self.links.calls[number]
        return found

    def call(self) -> Stored:
        ((_, _, _, stored),) = self.links.calls
        assert isinstance(stored, Stored)
        return stored


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_task_waits_as_it_did(rig: Rig) -> None:
    rig.take(7, given=77, attempt=4, failed=3, key="k", options=wire.pack(["mine", b"c"]))
    assert rig.links.calls[0][:3] == (NOW, "k", None)
    note = registry.find("test.note")
    assert note is not None
    assert rig.call() == Stored(note, b"", "mine", b"c", 0, 4, 3, 77)
    kept = rig.links.kept[0]
    assert (kept.row, kept.stamp, kept.once, kept.suspect) == (7, 0, False, False)
    assert rig.written() is None


@pytest.mark.parametrize(
    ("more", "confirmed"),
    [
        ({}, 0),
        ({"id": "a"}, 1),
        ({"function": 2}, wire.FEW),
        ({"function": 4}, wire.FEW),
        ({"losses": 1}, wire.ALONE),
        ({"due": HEARTBEAT + HEARTBEAT_SLACK - 1}, 1),
        ({"due": HEARTBEAT + HEARTBEAT_SLACK}, 0),
        ({"due": 0}, 1),  # in a queue any task may have begun
    ],
)
def test_which_tasks_wait_for_the_record_after_a_crash(rig: Rig, more: Any, confirmed: int) -> None:
    rig.take(**more)
    assert rig.call().confirmed == confirmed
    kept = rig.links.kept[0]
    assert kept.suspect == ("losses" in more or more.get("due", NOW) < HEARTBEAT + HEARTBEAT_SLACK)
    assert kept.once == (more.get("function") in (2, 4))


def test_after_a_close_only_tasks_lost_before_are_suspects() -> None:
    rig = Rig(clean=True)
    rig.take(due=0)
    rig.take(losses=2)
    assert [call[3].confirmed for call in rig.links.calls] == [0, wire.ALONE]


def test_what_had_begun_is_lost_once_more(rig: Rig) -> None:
    for row, begun, losses in ((1, Begun.YES, 0), (2, Begun.YES, 2), (3, Begun.ONCE, 0)):
        rig.take(row, begun=begun, losses=losses, attempt=losses + 1)
    batch = rig.written()
    ((update),) = batch.updates
    assert (update.row, update.begun, update.attempt, update.losses) == (1, Begun.NO, 2, 1)
    assert [(each.row, each.reason, each.attempt) for each in batch.burials] == [
        (2, Reason.LOST, 3),
        (3, Reason.LOST, 1),
    ]
    assert "3 times in a row" in batch.burials[0].text
    assert "must not start a second time" in batch.burials[1].text
    stored = rig.call()
    assert (stored.attempt, stored.confirmed) == (2, wire.ALONE)


def test_a_once_only_task_has_not_begun_if_not_on_record(rig: Rig) -> None:
    rig.take(function=2, due=HEARTBEAT - 1)
    assert not rig.links.kept[0].suspect
    assert rig.call().confirmed == wire.FEW


def test_an_unreadable_task_is_a_letter_and_holds_up_no_other(rig: Rig) -> None:
    rig.take(1, function=99)
    rig.take(2, options=b"\xc1")
    rig.restoring.take(Row(3, NOW, 1, b"bad"), {})
    rig.take(4)
    burials = rig.written().burials
    assert [(each.row, each.reason) for each in burials] == [
        (1, Reason.UNKNOWN),
        (2, Reason.UNREADABLE),
        (3, Reason.UNREADABLE),
    ]
    assert "no function with the number 99" in burials[0].text
    assert "ValueError: no such function" in burials[2].text
    assert rig.links.kept[0].row == 4


# ---- many at once


def test_those_as_most_are_come_at_once_and_the_others_between_them(rig: Rig) -> None:
    rows = [Row(row, NOW + row, 1, b"%d" % row) for row in range(1, 9)]
    rows[6] = rows[6]._replace(id="a")
    rig.restoring.take_many([(row, None) for row in rows], {})
    assert rig.links.shared == [6, 1]
    assert [stored.payload for *_, stored in rig.links.calls] == [
        *(b"1", b"4", b"2", b"5", b"3", b"6"),
        *(b"7", b"8"),
    ]
    assert all(rig.links.kept[number].row in rig.where for number in range(8))
    assert rig.shelf.told == [("left", 7, 0, 6)]


ODD: list[dict[str, Any]] = [
    *({}, {}, {}, {"function": 2}, {"function": 3}, {"function": 4}, {"function": 99}),
    *({"payload": b"bad"}, {"due": 1}, {"id": "a"}, {"key": "k"}, {"losses": 2}, {"given": 5}),
    *({"begun": Begun.YES}, {"begun": Begun.ONCE}, {"options": wire.pack(["mine", None])}),
    {"attempt": 3, "failed": 2},
]


@given(st.lists(st.sampled_from(ODD), max_size=30), st.sets(st.integers(1, 30)))
def test_all_is_as_if_they_had_come_one_by_one(odd: list[dict[str, Any]], held: set[int]) -> None:
    rows = [Row(row, NOW, 1, b"p")._replace(**more) for row, more in enumerate(odd, 1)]
    many, singly = Rig(), Rig()
    many.shelf.rows, singly.shelf.rows = set(held), set(held)
    many.restoring.take_many([(row, None) for row in rows], {})
    for row in rows:
        singly.restoring.take(row, {})
    assert many.state() == singly.state()
    for number in held & many.state().keys():  # held tasks are reported
        assert any(told[:2] == ("left", number) for told in many.shelf.told)


# ---- whereabouts and holders


def test_a_restored_task_is_found_by_its_row_and_its_listeners_move(
    rig: Rig,
) -> None:
    rig.take(7)
    rig.take(8)
    assert [rig.where.find(row) for row in (7, 8, 9)] == [(0, 0), (0, 1), None]
    assert rig.shelf.told == [("left", 7, 0, 0), ("left", 8, 0, 1)]


def test_what_is_behind_the_horizon_stays_in_memory(rig: Rig) -> None:
    rig.where.horizon.reached = (NOW, 5)
    rig.take(5)
    rig.take(6)
    assert rig.where.horizon.ahead == {6}


def test_holders_of_dead_letters_and_struck_tasks_are_notified(rig: Rig) -> None:
    rig.take(1, function=99)
    rig.restoring.take(Row(2, NOW, 1, b"bad"), {})
    rig.take(3, begun=Begun.ONCE)
    rig.hurry("a", replace=True)
    rig.take(4, id="a")
    assert rig.shelf.told == [
        ("buried", 1, Reason.UNKNOWN),
        ("buried", 2, Reason.UNREADABLE),
        ("buried", 3, Reason.LOST),
        ("withdrawn", 4),
    ]
    for row in range(1, 5):  # whatever the file says until then
        unwritten = rig.where.horizon.find(row)
        assert unwritten is not None
        assert unwritten.row is None


@pytest.mark.parametrize("held", [False, True])
def test_give_way_learns_whether_the_task_has_a_handle(rig: Rig, held: bool) -> None:
    rig.hurry("a")
    rig.shelf.rows = {1} if held else set()
    rig.take(id="a")
    assert rig.links.held == [held]


def test_what_is_kept_of_it_stays_so(rig: Rig) -> None:
    row = Row(7, NOW, 2, b"", attempt=3)
    kept = Kept.of(row)
    rig.restoring.take(row, {}, kept)
    assert rig.links.kept[0] is kept
    assert kept.once


# ---- suspects


def test_only_what_was_due_in_the_last_host_is_doubted(rig: Rig) -> None:
    end = HEARTBEAT + HEARTBEAT_SLACK
    assert rig.restoring.doubts(Row(FIRST_ROW - 1, end - 1, 1, b""))
    assert not rig.restoring.doubts(Row(FIRST_ROW - 1, end, 1, b""))
    assert not rig.restoring.doubts(Row(FIRST_ROW, end - 1, 1, b""))  # a row of this host
    assert not Rig(clean=True).restoring.doubts(Row(1, 0, 1, b""))


def test_a_doubt_stays_with_what_is_moved(rig: Rig) -> None:
    row = Row(7, NOW, 1, b"")
    assert not rig.restoring.doubts(row)
    rig.restoring.take(row, {}, None, doubted=True)
    assert rig.links.kept[0].suspect
    assert rig.call().confirmed == 1


def test_what_has_not_been_read_yet_may_leave_suspects(rig: Rig) -> None:
    horizon = rig.where.horizon
    horizon.reached = (HEARTBEAT + HEARTBEAT_SLACK - 1, 0)
    assert rig.restoring.leaves_suspects
    horizon.is_whole = True
    assert not rig.restoring.leaves_suspects
    horizon.is_whole = False
    horizon.reached = (HEARTBEAT + HEARTBEAT_SLACK, 0)
    assert not rig.restoring.leaves_suspects
    assert not Rig(clean=True).restoring.leaves_suspects


# ---- tasks scheduled before the file was open


def test_a_task_of_the_file_replaces_an_early_one_with_its_id(rig: Rig) -> None:
    rig.hurry("a")
    rig.take(id="a")
    assert rig.links.given_way == [("a", 1)]
    assert rig.links.kept.keys() == {0}
    assert rig.written() is None


@pytest.mark.parametrize("due", [HEARTBEAT, HEARTBEAT + HEARTBEAT_SLACK])
def test_it_may_have_ended_its_host_though_it_was_moved_meanwhile(rig: Rig, due: int) -> None:
    rig.hurry("a").due = NOW + 9
    rig.take(due=due, id="a")
    (update,) = rig.written().updates
    assert update.due == rig.links.calls[0][0] == NOW + 9
    assert rig.links.kept[0].suspect is (due == HEARTBEAT)


@pytest.mark.parametrize("how", [{"replace": True}, {"row": WITHDRAWN}])
def test_it_is_struck_if_the_early_one_replaces_it_or_was_cancelled(rig: Rig, how: Any) -> None:
    kept = rig.hurry("a", **how)
    row = rig.take(id="a", begun=Begun.YES)
    assert rig.written().strikes == [(row.bucket, row.row)]
    assert rig.links.calls == []
    assert rig.links.kept == {77: kept}


@pytest.mark.parametrize("more", [{"begun": Begun.ONCE}, {"function": 99}, {"function": 3}])
def test_the_early_one_stays_if_that_of_the_file_cannot_go_on(rig: Rig, more: Any) -> None:
    kept = rig.hurry("a")
    rig.take(id="a", **more)
    assert len(rig.written().burials) == 1
    assert rig.links.kept == {77: kept}
    assert rig.links.given_way == []


def test_the_early_one_stays_if_that_of_the_file_cannot_be_read(rig: Rig) -> None:
    kept = rig.hurry("a")
    rig.restoring.take(Row(3, NOW, 1, b"bad", id="a"), rig.early)
    assert rig.links.kept == {77: kept}
    assert rig.links.given_way == []


# ---- functions of a script


def register(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(registry._names, name, registry.find("test.note"))  # type: ignore[arg-type]


def test_a_script_may_define_its_functions_for_a_minute(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.take(1, due=NOW - 1, function=3)
    rig.take(2, due=NOW + MAIN_PATIENCE, function=3)
    rig.take(3, due=NOW + MAIN_PATIENCE + 1, function=3)
    assert not rig.restoring.resolve(NOW + MAIN_PATIENCE - 1)
    assert rig.links.calls == []
    assert rig.restoring.resolve(NOW + MAIN_PATIENCE)
    burials = rig.written().burials
    assert [(each.row, each.reason) for each in burials] == [
        (1, Reason.UNKNOWN),
        (2, Reason.UNKNOWN),
    ]
    assert "no function is registered as 'test.later'; register it" in burials[0].text
    register(monkeypatch, "test.later")
    assert rig.restoring.resolve(NOW + MAIN_PATIENCE)
    assert rig.links.kept[0].row == 3
    assert not rig.restoring.resolve(NOW + 2 * MAIN_PATIENCE)


def test_what_is_defined_in_time_is_admitted_in_order(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in range(1, 4):
        rig.take(row, due=NOW - 10 + row, function=3, id=f"n{row}")
    rig.restoring.take(Row(4, NOW, 3, b"bad"), {})
    register(monkeypatch, "test.later")
    assert rig.restoring.resolve(NOW)
    assert [kept.row for kept in rig.links.kept.values()] == [1, 2, 3]
    assert [call[2] for call in rig.links.calls] == ["n1", "n2", "n3"]
    assert [each.row for each in rig.written().burials] == [4]
    rig.restoring.claim("n1", NOW)  # now a task at a link has it
    assert rig.written() is None


def test_an_id_that_is_needed_is_taken_from_what_waits_for_its_function(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row in range(1, 4):
        rig.take(row, function=3, id=f"n{row}")
    rig.restoring.claim("n2", NOW)
    rig.restoring.claim("n2", NOW)
    rig.restoring.claim("other", NOW)
    assert [each.row for each in rig.written().burials] == [2]
    register(monkeypatch, "test.later")
    rig.restoring.claim("n3", NOW)  # it may still run
    assert [kept.row for kept in rig.links.kept.values()] == [1, 3]
    assert rig.written() is None


def test_what_waits_for_its_function_may_be_given_another_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.take(1, function=3, given=5)
    assert rig.restoring.waits(1)
    assert rig.restoring.waiting == 1
    before = rig.restoring.move(1, NOW + 2 * MAIN_PATIENCE)
    assert (before.due, before.given) == (NOW, 5)
    (update,) = rig.written().updates
    assert (update.row, update.due, update.given) == (1, NOW + 2 * MAIN_PATIENCE, None)
    assert not rig.restoring.resolve(NOW + MAIN_PATIENCE)
    register(monkeypatch, "test.later")
    assert rig.restoring.resolve(NOW + MAIN_PATIENCE)
    assert rig.links.calls[0][0] == rig.links.kept[0].due == NOW + 2 * MAIN_PATIENCE
    assert not rig.restoring.waits(1)


def test_what_waits_for_its_function_may_be_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = rig.take(1, function=3, id="a")
    rig.restoring.withdraw(1)
    assert rig.written().strikes == [(row.bucket, 1)]
    assert rig.shelf.told == [("withdrawn", 1)]
    assert rig.restoring.waiting == 0
    register(monkeypatch, "test.later")
    rig.restoring.claim("a", NOW)
    rig.restoring.resolve(NOW + 2 * MAIN_PATIENCE)
    assert rig.links.calls == []
    assert rig.written() is None


def test_nothing_is_admitted_or_given_up_once_the_manager_is_over(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.take(1, function=3)
    rig.links.is_over = True
    assert not rig.restoring.resolve(NOW + MAIN_PATIENCE)
    register(monkeypatch, "test.later")
    assert not rig.restoring.resolve(NOW + MAIN_PATIENCE)
    assert rig.links.calls == []
    assert rig.written() is None


def test_which_tasks_leave_suspects(rig: Rig) -> None:
    rig.where.horizon.is_whole = True
    rig.take(1, function=3)
    rig.take(2, function=3, losses=1, due=0)  # its row shows that
    assert not rig.restoring.leaves_suspects
    rig.take(3, function=3, due=0)
    assert rig.restoring.leaves_suspects


def test_tasks_waiting_for_a_function_are_logged_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    for row in range(1, 6):
        rig.take(row, function=3)
    rig.take(6, function=3, id="a")
    rig.take(7)
    rig.restoring.claim("a", NOW)
    rig.restoring.resolve(NOW + SECOND - 1)
    assert not caplog.records
    for _ in range(2):
        rig.restoring.resolve(NOW + SECOND)
    assert caplog.messages == [
        "durable tasks wait for functions of a script that this program has not defined: "
        "'test.later' (5). They are looked for until 60 s after the start; then their tasks become "
        "dead letters (unknown) when they are due. Import or define them by then, or start the "
        "script that does; until then join() and len() do not count these tasks"
    ]


def test_only_some_of_many_awaited_functions_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(functions=[Function(n, f"f{n}", "__main__:f", once=False) for n in range(12)])
    for n in range(12):
        rig.take(n, function=n)
    rig.restoring.resolve(NOW + SECOND)
    assert "'f0' (1), 'f1' (1)" in caplog.text
    assert "'f9' (1) and 2 more. They are" in caplog.text


def test_a_function_defined_in_time_is_not_logged(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.take(1, function=3)
    note = registry.find("test.note")
    monkeypatch.setattr(registry, "find", lambda name: note)
    assert rig.restoring.resolve(NOW + SECOND)
    rig.restoring.resolve(NOW + 2 * SECOND)
    assert not caplog.records
