"""Many calls of one function."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import reminders
from fakelinks import FakeLink, make

from aioscheduler import registry
from aioscheduler._routing.router import Router
from aioscheduler._routing.submission import submit
from aioscheduler.errors import NotShippable, StoreError, TaskLimitReached


async def work(n: int = 0) -> int:
    return n


def test_a_batch_is_spread_over_all_places_and_cut_at_the_room() -> None:
    router, links = make([1, 1])
    submit(router, work, [(1,)] * 6, None, None, {})
    assert [[entry[3] for entry in link.many] for link in links] == [[3], [3]]
    for link in links:
        link._room, link.many = 2, []
    submit(router, work, [(1,)] * 6, None, None, {})
    assert [entry[0] for link in links for entry in link.many] == [0, 4, 2]
    assert sum(entry[3] for link in links for entry in link.many) == 6


def test_a_batch_of_large_items_is_cut_at_the_frame() -> None:
    router, (link,) = make([1])
    submit(router, work, [(40_000,)] * 5, None, None, {})
    assert [entry[3] for entry in link.many] == [2, 2, 1]


def test_a_key_keeps_a_batch_in_one_place() -> None:
    router, links = make([1, 1])
    submit(router, work, [(1,)] * 600, None, "k", {})
    place = router.placement.place_of_key("k")
    assert [sum(entry[3] for entry in link.many) for link in links][place] == 600


def test_times_of_a_batch_are_cut_with_it() -> None:
    router, (link,) = make([1])
    link._room = 2
    spans = [timedelta(seconds=s) for s in (3, 1, 2)]
    submit(router, work, [(1,)] * 3, spans, None, {})
    (_, _, first, _), (_, _, second, _) = link.many
    assert len(first) == 2
    assert [due - second[0] for due in first] == [10**9, -(10**9)]


@pytest.mark.parametrize(
    ("calls", "when", "limits", "error", "message"),
    [
        ([(1,), ("bad",)], None, {}, NotShippable, "item 1: its argument is bad"),
        ([(1,)] * 3, None, {"max_tasks": 2}, TaskLimitReached, "item 2: "),
        ([(1,)] * 3, None, {"max_each": 2}, TaskLimitReached, "item 2: "),
        ([(1,)] * 2, [timedelta(1), timedelta(-1)], {}, ValueError, "item 1: when must not be"),
        ([(1,)] * 2, [timedelta(1), 5], {}, TypeError, "item 1: when must be"),
        ([(1,)] * 2, [timedelta(1)], {}, ValueError, "1 times for 2 items"),
    ],
)
def test_a_refusal_names_the_item_and_cancels_calls_already_sent(
    calls: Any, when: Any, limits: Any, error: Any, message: str
) -> None:
    router, (link,) = make([1], **limits)
    link._room = 1
    with pytest.raises(error, match=message):
        submit(router, work, calls, when, None, {})
    assert len(link.cancelled) == len(link.many)


@pytest.mark.parametrize("flag", ["no", 1, None])
def test_a_batch_with_a_wrong_flag_is_refused(flag: Any) -> None:
    router, (link,) = make([1])
    with pytest.raises(TypeError, match="return_exceptions must be True or False"):
        submit(router, work, [(1,)], None, None, {}, flag)
    assert not link.many


def test_only_callables_are_mapped() -> None:
    router, _ = make([1])
    coro: Any = work()
    with pytest.raises(TypeError, match=r"leave out the call: map\(work, items\)"):
        submit(router, coro, [(1,)], None, None, {})
    assert coro.cr_frame is None
    three: Any = 3
    with pytest.raises(TypeError, match=r"^map\(\) takes a function and its items, not int$"):
        submit(router, three, [(1,)], None, None, {})
    with pytest.raises(TypeError, match=r"^starmap\(\) takes a function and its items, not int$"):
        submit(router, three, [(1,)], None, None, {}, call="starmap")


@pytest.mark.parametrize("limits", [{"max_tasks": 3}, {"max_each": 1}])
@pytest.mark.parametrize("whens", [None, itertools.repeat(timedelta(1))])
def test_an_endless_iterable_is_refused_at_the_limit(limits: Any, whens: Any) -> None:
    router, links = make([1, 1, 1], **limits)
    read = 0

    def endless() -> Iterator[tuple[int]]:
        nonlocal read
        while True:
            yield (1,)
            read += 1

    with pytest.raises(TaskLimitReached, match="item 3: "):
        submit(router, work, endless(), whens, None, {})
    assert read == 3
    assert sum(len(link.cancelled) for link in links) == 3


def test_endless_times_are_refused() -> None:
    router, _ = make([1])
    with pytest.raises(ValueError, match="more than 2 times for 2 items"):
        submit(router, work, [(1,)] * 2, itertools.repeat(timedelta(1)), None, {})  # type: ignore[arg-type]


# ---- durable calls


class FakeKeeper:
    """Accepts durable calls; those due from some time on are only in the file.

    Attributes:
        told: The calls it received, in order.
        full: Whether it is full.
    """

    def __init__(self, far: int = 1 << 63) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.full = False
        self._far = far
        self.commits = SimpleNamespace(check_room=self._check_room)
        self.drafts = SimpleNamespace(draft_many=self._draft_many, take_some=self._take_some)
        self.calls = SimpleNamespace(make_many=lambda stored, some: (stored, some, "record"))
        self.shelf = SimpleNamespace(schedule_many=self._shelved)
        self.intake = SimpleNamespace(enter_many=self._entered)

    def _check_room(self) -> None:
        if self.full:
            raise StoreError("too much is unsaved")

    def _draft_many(self, durable: Any, name: Any, captured: Any, key: Any) -> Any:
        self.told.append(("draft", durable.name, name, captured, key))
        return SimpleNamespace(stored="stored")

    def _take_some(self, draft: Any, calls: list[Any], start: int, most: int) -> list[bytes]:
        return [b"%d" % args for args in calls[start : start + most]]

    def is_far(self, due: int) -> bool:
        return due >= self._far

    def _shelved(self, outcomes: Any, offset: int, dues: Any, some: Any, draft: Any) -> None:
        assert outcomes.durable
        self.told.append(("shelved", offset, dues, some))

    def _entered(self, worker: int, first: int, dues: Any, some: Any, draft: Any) -> None:
        self.told.append(("entered", worker, first, dues, some))


def make_durable(layout: list[int], keeper: FakeKeeper) -> tuple[Router, list[FakeLink]]:
    router, links = make(layout)
    router.keeper = keeper  # type: ignore[assignment]
    return router, links


def test_durable_calls_go_to_their_links_and_into_the_file() -> None:
    keeper = FakeKeeper()
    router, links = make_durable([1, 1], keeper)
    batch = submit(router, reminders.note, [(n,) for n in range(4)], None, "k", {"name": "mine"})
    place = router.placement.place_of_key("k")
    draft, entered = keeper.told
    durable = registry.of_function(reminders.note)
    assert durable is not None
    assert draft == ("draft", durable.name, "mine", None, "k")
    (sent,) = links[place].many
    assert entered == ("entered", place, 0, sent[2], [b"0", b"1", b"2", b"3"])
    assert links[place].records == ["record"]
    assert batch._outcomes.durable
    assert batch._outcomes.name == "mine"


def test_far_off_durable_calls_are_only_in_the_file() -> None:
    keeper = FakeKeeper()
    router, (link,) = make_durable([1], keeper)
    dues = [router.due(timedelta(hours=hours)) for hours in (1, 2)]
    keeper._far = sum(dues) // 2
    times = [timedelta(hours=hours) for hours in (1, 3, 3, 1, 1)]
    submit(router, reminders.note, [(n,) for n in range(5)], times, None, {})
    told = [(what, rest[-1]) for what, *rest in keeper.told[1:]]
    assert told == [("entered", [b"0"]), ("shelved", [b"1", b"2"]), ("entered", [b"3", b"4"])]
    assert [(entry[0], entry[3]) for entry in link.many] == [(0, 1), (3, 2)]
    assert [len(told[3]) for told in keeper.told if told[0] == "entered"] == [1, 2]
    assert keeper.told[2][1] == 1
    assert router.placement.all_loads == 3  # the shelf counts its tasks itself


def test_durable_calls_are_refused_without_room_for_them() -> None:
    keeper = FakeKeeper()
    keeper.full = True
    router, (link,) = make_durable([1], keeper)
    with pytest.raises(StoreError, match="unsaved"):
        submit(router, reminders.note, [(1,)], None, None, {})
    assert (link.many, keeper.told) == ([], [])


def test_without_a_store_durable_calls_are_as_others() -> None:
    router, (link,) = make([1])
    batch = submit(router, reminders.note, [(1,)], None, None, {})
    assert len(link.many) == 1
    assert not batch._outcomes.durable


def test_durable_calls_of_one_time_far_off_are_only_in_the_file() -> None:
    keeper = FakeKeeper(far=0)
    router, (link,) = make_durable([1], keeper)
    submit(router, reminders.note, [(n,) for n in range(3)], timedelta(hours=1), None, {})
    assert [(told[0], told[-1]) for told in keeper.told[1:]] == [("shelved", [b"0", b"1", b"2"])]
    assert link.many == []
    assert router.placement.all_loads == 0
