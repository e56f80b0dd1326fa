"""An id names one task at most, and is free when that has ended."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._routing import ids as module
from aioscheduler._routing.ids import MOST_ALIASES, Ids
from aioscheduler._transport.entry import ALIAS_BITS


def test_an_id_is_free_again_when_its_task_has_ended() -> None:
    ids = Ids(2)
    ids.give("a", (1, 0, 5))
    assert ids.find("a") == (1, 0, 5)
    assert ids.of == ({}, {5: "a"})
    ids.ended(1, range(4, 7))
    assert ids.find("a") is None
    assert ids.of == ({}, {})


def test_a_task_that_lost_its_id_does_not_free_it_at_its_end() -> None:
    ids = Ids(2)
    ids.give("a", (0, 0, 5))
    ids.give("a", (1, 0, 5))
    ids.ended(0, [5])
    assert ids.find("a") == (1, 0, 5)
    ids.release(1, 5)
    ids.release(1, 5)
    assert ids.find("a") is None


def test_an_alias_leads_to_a_task_until_it_ends_with_or_without_its_id() -> None:
    ids = Ids(1)
    ids.give("a", (0, 0, 5))
    ids.lead(1 << 50, (0, 0, 5))
    ids.release(0, 5)
    assert ids.leads == {1 << 50: (0, 0, 5)}
    ids.ended(0, [4])
    assert ids.leads
    ids.ended(0, [5])
    assert not ids.leads


def test_only_the_last_of_very_many_aliases_are_kept() -> None:
    ids = Ids(1)
    ids.give("a", (0, 0, 5))
    for alias in range(MOST_ALIASES + 10):
        ids.lead(alias, (0, 0, 5))
    assert list(ids.leads) == list(range(10, MOST_ALIASES + 10))
    ids.ended(0, [5])
    assert not ids.leads


@pytest.mark.parametrize("given_", [True, False])
def test_what_never_had_one_may_end(given_: bool) -> None:
    ids = Ids(1)
    if given_:
        ids.give("a", (0, 0, 9))
    ids.ended(0, [5])
    assert (ids.find("a") is not None) is given_


@given(st.integers(0, 1 << 32))
def test_the_ids_agree_with_a_model(seed: int) -> None:
    draw = random.Random(seed)
    ids = Ids(3)
    has: dict[tuple[int, int, int], str | None] = {}  # the unfinished tasks
    aliases: dict[int, tuple[int, int, int]] = {}
    for number in range(60):
        deed = draw.choice(("give", "give", "end", "release", "lead"))
        some = draw.choice(list(has)) if has else None
        if deed == "give":
            address, id_ = (draw.randrange(3), draw.randrange(2), number), draw.choice("abc")
            for other in [other for other, held in has.items() if held == id_]:
                has[other] = None
            has[address] = id_
            ids.give(id_, address)
        elif some is None:
            continue
        elif deed == "end":
            del has[some]
            aliases = {alias: to for alias, to in aliases.items() if to != some}
            ids.ended(some[0], [some[2], number + 1000])
        elif deed == "release":
            has[some] = None
            ids.release(some[0], some[2])
        else:
            aliases[number] = some
            ids.lead(number, some)
        for id_ in "abc":
            found = [address for address, held in has.items() if held == id_]
            assert found == ([] if ids.find(id_) is None else [ids.find(id_)])
        assert ids.leads == aliases
        held_by = {(a[0], a[2]): held for a, held in has.items() if held is not None}
        kept = {(w, n): held for w, own in enumerate(ids.of) for n, held in own.items()}
        assert kept == held_by


def test_forgotten_aliases_are_known_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_ALIASES", 2)
    ids = Ids(1)
    first, other = 5 << ALIAS_BITS, 6 << ALIAS_BITS  # from two processes
    for alias in (first, other, first + 1, first + 3):
        ids.lead(alias, (0, 0, 7))
    assert ids.leads.keys() == {first + 1, first + 3}
    assert [alias in ids.forgotten for alias in (first, first + 1, other, other + 1)] == [
        *(True, False, True, False)
    ]
    ids.lead(first + 4, (0, 0, 8))
    ids.ended(0, [8])
    assert first + 4 not in ids.forgotten  # its task has ended
    assert 9 not in ids.forgotten  # a number given by the host
