from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._transport import ledger as module
from aioscheduler._transport import wire
from aioscheduler._transport.ledger import PAGE, Ledger
from aioscheduler._transport.wire import Kind


def record_of(number: int) -> wire.Record:
    """None for most, options for some, and an alias for some."""
    return wire.make_record(number if number % 5 == 0 else None, 9 if number % 7 == 0 else None)


def enter(ledger: Ledger, first: int, count: int) -> None:
    columns = [
        [n % 3 for n in range(first, first + count)],
        [n * 10 for n in range(first, first + count)],
        7,
        [record_of(n) for n in range(first, first + count)],
        [b"%d" % n for n in range(first, first + count)],
    ]
    ledger.record(first, count, wire.encode([Kind.SCHEDULE, first, *columns]))


def kept(ledger: Ledger) -> list[int]:
    """The numbers of the frames the ledger gives back; checks that each record is whole."""
    numbers = []
    for kind, first, schedulers, dues, functions, records, payloads in wire.Decoder().feed(
        b"".join(ledger.replay())
    ):
        assert kind == Kind.SCHEDULE
        count = len(payloads)
        own = first if isinstance(first, list) else range(first, first + count)
        if isinstance(functions, int):
            functions = [functions] * count
        records = records or [None] * count
        for n, *row in zip(own, schedulers, dues, functions, records, payloads, strict=True):
            record = record_of(n)
            if n in ledger.attempts:
                options, alias, *_ = wire.read_record(record)
                record = wire.make_record(options, alias, ledger.attempts[n])
            assert row == [n % 3, n * 10, 7, record, b"%d" % n]
            numbers.append(n)
    return numbers


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.integers(1, 60)),
            st.tuples(st.sampled_from(["start", "end", "run", "rerun"]), st.integers(0, 10**6)),
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
        elif verb == "rerun" and started:
            choice = sorted(started)[value % len(started)]
            before = ledger.attempts.get(choice, 1)
            ledger.rerun([choice])
            assert ledger.attempts[choice] == before + 1
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
    assert set(ledger.started()) == started
    by_scheduler = ledger.by_scheduler(alive[::2])
    assert sorted(n for own in by_scheduler.values() for n in own) == alive[::2]
    assert all(n % 3 == scheduler for scheduler, own in by_scheduler.items() for n in own)
    assert set(ledger.attempts) <= set(alive)
    for n in alive:
        if n in ledger.attempts:
            assert wire.read_record(ledger.find(n)[3])[2] == ledger.attempts[n]  # type: ignore[index]
            continue
        assert ledger.find(n) == (n % 3, n * 10, 7, record_of(n))
    assert ledger.find(number) is None


def test_wrong_numbers_are_noticed() -> None:
    ledger = Ledger()
    enter(ledger, 0, 10)
    ledger.start([3])
    ledger.end(5)
    for wrong in ([3], [5], [10], [10**9]):
        assert ledger.start(wrong) == 0
    assert ledger.start([1, 1]) == 1
    assert ledger.start([7, 8, 9, 10, 11]) == 3
    for number in (5, 10, 10**9):
        assert ledger.end(number) is None
    assert ledger.end_started([3, 4]) == 1
    assert ledger.end_started([7, 8, 9, 10]) == 3
    for row in ([4], [PAGE], [3]):
        assert ledger.end_started(row) == 0
    assert list(ledger) == [0, 1, 2, 4, 6]
    assert len(ledger) == 5
    assert kept(ledger) == [0, 1, 2, 4, 6]
    assert ledger.unstart([1, 2]) == 1
    assert ledger.started() == []


def test_what_is_recorded_meanwhile_is_not_replayed() -> None:
    ledger = Ledger()
    enter(ledger, 0, PAGE)
    frames = ledger.replay()
    enter(ledger, PAGE, 10)
    assert len(list(frames)) == 1


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


def test_what_is_pending_comes_in_rows() -> None:
    ledger = Ledger()
    assert list(ledger.pending_rows()) == []
    for first in (0, PAGE):
        ledger.record(first, PAGE, b"")
    ledger.record(2 * PAGE, 3, b"")
    assert ledger.start([0, 5, 6, PAGE + 1]) == 4
    assert ledger.end(5)
    rows = list(ledger.pending_rows())
    assert rows == [
        range(1, 5),
        range(7, PAGE),
        range(PAGE, PAGE + 1),
        range(PAGE + 2, 2 * PAGE),
        range(2 * PAGE, 2 * PAGE + 3),
    ]
    for row in rows:
        assert ledger.end_pending(list(row)) == len(row)
    assert list(ledger) == [0, 6, PAGE + 1]
    assert list(ledger.pending_rows()) == []


@given(
    st.lists(st.integers(0, 32 * 1024), min_size=1, max_size=PAGE),
    st.lists(st.integers(0, PAGE - 1), max_size=PAGE),
    st.integers(0, 32 * 1024),
)
def test_no_frame_is_over_its_limit_however_pages_are_merged(
    sizes: list[int], ended: list[int], function: int
) -> None:
    ledger = Ledger()
    for number, size in enumerate(sizes):
        columns = [0, 10, bytes(function), None, [bytes(size)]]
        ledger.record(number, 1, wire.encode([Kind.SCHEDULE, number, *columns]))
    alive = set(range(len(sizes)))
    for number in ended:
        if number in alive:
            ledger.end(number)
            alive.remove(number)
    found: list[int] = []
    for frame in ledger.replay():
        ((_, first, _, _, functions, _, payloads),) = wire.Decoder().feed(frame)
        own = [first] if isinstance(first, int) else first
        found += own
        assert [len(payload) for payload in payloads] == [sizes[number] for number in own]
        assert set(functions if isinstance(functions, list) else [functions]) == {bytes(function)}
    assert found == sorted(alive)
    assert all(ledger.find(number) == (0, 10, bytes(function), None) for number in alive)


def test_large_tasks_that_have_ended_are_not_kept_beside_far_off_ones() -> None:
    ledger = Ledger()
    for number in range(8_000):
        payload = bytes(4_000) if number % 2 else b""
        ledger.record(number, 1, wire.encode([Kind.SCHEDULE, number, 0, 10, 7, None, [payload]]))
        if number % 2:
            ledger.end(number)
    kept_bytes = sum(map(len, ledger.replay()))
    assert kept_bytes < 200_000
    in_frames = sum(len(f) for page in ledger._pages.values() for f in page.frames)
    assert in_frames < 2 * module._LARGE_SLACK
    assert len(ledger) == 4_000
