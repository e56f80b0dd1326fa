from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler import ledger as module
from aioscheduler import wire
from aioscheduler.ledger import PAGE, Ledger, UnknownNumber
from aioscheduler.wire import Kind


def enter(ledger: Ledger, first: int, count: int) -> None:
    columns = [
        [n % 3 for n in range(first, first + count)],
        [n * 10 for n in range(first, first + count)],
        7,
        [b"%d" % n for n in range(first, first + count)],
    ]
    ledger.record(first, count, wire.encode([Kind.SCHEDULE, first, *columns]))


def kept(ledger: Ledger, keep: object = None) -> list[int]:
    """The numbers of the frames the ledger gives back; checks that each record is whole."""
    numbers = []
    for kind, own, schedulers, dues, functions, payloads in ledger.frames(
        keep or (lambda n: True)  # type: ignore[arg-type]
    ):
        assert kind == Kind.SCHEDULE
        for n, *record in zip(own, schedulers, dues, functions, payloads, strict=True):
            assert record == [n % 3, n * 10, 7, b"%d" % n]
            numbers.append(n)
    return numbers


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.integers(1, 60)),
            st.tuples(st.sampled_from(["start", "end", "run"]), st.integers(0, 10**6)),
        ),
        max_size=80,
    )
)
def test_it_knows_what_is_out(steps: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    alive: list[int] = []
    started: set[int] = set()
    number = 0
    for verb, value in steps:
        if verb == "record":
            count = min(value, PAGE - number % PAGE)
            enter(ledger, number, count)
            alive += range(number, number + count)
            number += count
        elif verb == "start" and alive:
            choice = alive[value % len(alive)]
            if choice not in started:
                ledger.start([choice])
                started.add(choice)
        elif verb == "end" and alive:
            choice = alive.pop(value % len(alive))
            assert ledger.end(choice) == (choice in started)
            started.discard(choice)
        elif verb == "run" and alive:
            first = alive[value % len(alive)]
            count = 1
            while first + count in alive and (first + count) % PAGE and count < 5:
                count += 1
            row = set(range(first, first + count))
            fresh = [n for n in row if n not in started]
            ledger.start(fresh)
            ledger.end_started(sorted(row))
            alive = [n for n in alive if n not in row]
            started -= row
        assert list(ledger) == alive
        assert len(ledger) == len(alive)
        assert {n for n in alive if ledger.has_started(n)} == started
    assert kept(ledger) == alive
    assert kept(ledger, lambda n: n % 2 == 0) == [n for n in alive if n % 2 == 0]
    for n in alive:
        assert ledger.find(n) == (n % 3, n * 10)
    assert ledger.find(number) is None


def test_wrong_numbers_are_noticed() -> None:
    ledger = Ledger()
    enter(ledger, 0, 10)
    ledger.start([3])
    ledger.end(5)
    for wrong in ([3], [5], [10], [10**9], [1, 1]):
        with pytest.raises(UnknownNumber):
            ledger.start(wrong)
    for number in (5, 10, 10**9):
        with pytest.raises(UnknownNumber):
            ledger.end(number)
    for row in ([3, 4], [4], [PAGE], [9, 10]):
        with pytest.raises(UnknownNumber):
            ledger.end_started(row)


def test_one_survivor_a_page_does_not_keep_the_rest() -> None:
    ledger = Ledger()
    pages = 400
    for page in range(pages):
        enter(ledger, page * PAGE, PAGE)
    before = sum(len(f) for p in ledger._pages.values() for f in p.frames)
    survivors = [page * PAGE + page % PAGE for page in range(pages)]
    for number in range(pages * PAGE):
        if number not in set(survivors[number // PAGE : number // PAGE + 1]):
            ledger.end(number)
    after = sum(len(f) for p in ledger._pages.values() for f in p.frames)
    assert kept(ledger) == survivors
    assert after < before / 4
    assert ledger._kept <= 5 * len(ledger) + module._SLACK


def test_a_page_goes_with_its_last_task() -> None:
    ledger = Ledger()
    for page in range(3):
        enter(ledger, page * PAGE, PAGE)
        numbers = list(range(page * PAGE, (page + 1) * PAGE))
        ledger.start(numbers)
        ledger.end_started(numbers)
    assert len(ledger._pages) <= 1  # the newest may still grow
    assert ledger._kept == sum(page.kept for page in ledger._pages.values())
