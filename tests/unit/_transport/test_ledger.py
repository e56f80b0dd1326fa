from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._scheduling.states import ENDED, MOVES, State
from aioscheduler._transport import ledger as module
from aioscheduler._transport import wire
from aioscheduler._transport.entry import Entry
from aioscheduler._transport.ledger import PAGE, Ledger, make_frames
from aioscheduler._transport.wire import Kind


def record_of(number: int) -> wire.Record:
    """Records: None for most tasks, options for some, an alias for some."""
    more = wire.More(number if number % 5 == 0 else None, 9 if number % 7 == 0 else None)
    return wire.make_record(more)


def payload_of(number: int) -> bytes:
    """Large for some."""
    return b"%d" % number * (600 if number % 4 == 0 else 1)


def enter(ledger: Ledger, first: int, count: int) -> None:
    columns = [
        [n % 3 for n in range(first, first + count)],
        [n * 10 for n in range(first, first + count)],
        7,
        [record_of(n) for n in range(first, first + count)],
        [payload_of(n) for n in range(first, first + count)],
    ]
    sizes = {n: len(payload_of(first + n)) for n in range(count) if (first + n) % 4 == 0}
    frame = wire.encode([Kind.SCHEDULE, first, *columns])
    ledger.record(first, count, columns[0], frame, sizes=sizes)  # type: ignore[arg-type]  # ints


def replayed(ledger: Ledger) -> dict[int, Entry]:
    """Decode the frames that the ledger replays; their numbers come in order, each once."""
    found: dict[int, Entry] = {}
    for kind, first, *columns in wire.Decoder().feed(b"".join(ledger.replay())):
        assert kind == Kind.SCHEDULE
        count = len(columns[-1])
        own = first if isinstance(first, list) else range(first, first + count)
        whole = [column if isinstance(column, list) else [column] * count for column in columns]
        for number, row in zip(own, zip(*whole, strict=True), strict=True):
            assert number > max(found, default=-1)
            found[number] = Entry._make(row)
    return found


def entered(number: int) -> Entry:
    return Entry(number % 3, number * 10, 7, record_of(number), payload_of(number))


def amend(ledger: Ledger, entries: dict[int, Entry]) -> None:
    for numbers, frame in make_frames(entries):
        ledger.amend(numbers, frame)


VERBS = ["run", "wait", "finish", "cancel", "lose", "amend"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.integers(1, 60)),
            st.tuples(st.sampled_from(VERBS), st.integers(0, 10**6)),
        ),
        max_size=80,
    )
)
def test_it_knows_what_is_out(steps: list[tuple[str, int]]) -> None:
    ledger = Ledger()
    states: dict[int, State] = {}
    sent: dict[int, Entry] = {}
    after = {
        "run": State.RUNNING,
        "wait": State.PENDING,
        "finish": State.FINISHED,
        "cancel": State.CANCELLED,
        "lose": State.LOST,
    }
    number = 0
    for verb, value in steps:
        alive = list(states)
        if verb == "record":
            count = min(value, PAGE - number % PAGE)
            enter(ledger, number, count)
            for n in range(number, number + count):
                states[n], sent[n] = State.PENDING, entered(n)
            number += count
        elif alive:
            first = alive[value % len(alive)]
            row = [n for n in range(first, first + 1 + value % 5) if n in states]
            if verb == "amend":
                own = [n for n in row if n // PAGE == first // PAGE]
                changed = {n: sent[n]._replace(due=value) for n in own}
                amend(ledger, changed)
                sent |= changed
                continue
            good = 0
            while good < len(row) and after[verb] in MOVES[states[row[good]]]:
                good += 1
            assert ledger.move(row, after[verb]) == good
            for n in row[:good]:
                states[n] = after[verb]
                if after[verb] in ENDED:
                    del states[n], sent[n]
        assert list(ledger) == list(states)
        assert len(ledger) == len(states)
    running = [n for n in states if states[n] is State.RUNNING]
    assert ledger.running == len(running)
    assert list(ledger.running_numbers()) == running
    assert {n: ledger.state(n) for n in states} == states
    assert all(ledger.scheduler(n) == n % 3 for n in states)
    assert ledger.scheduler(number) is None
    assert replayed(ledger) == sent
    some = list(states)[::2]
    assert ledger.read(some) == {n: sent[n] for n in some}
    assert all(ledger.find(n) == sent[n] for n in states)
    assert ledger.find(number) is None
    assert ledger.state(number) is None
    for page in ledger._pages.values():
        assert page.kept >= page.count
    assert ledger._kept == sum(page.kept for page in ledger._pages.values())
    in_frames = sum(page.dead + sum(page.sizes.values()) for page in ledger._pages.values())
    assert ledger._large == in_frames
    assert ledger._large_dead == sum(page.dead for page in ledger._pages.values())


def test_what_is_amended_while_it_is_replayed_is_not_told_twice() -> None:
    ledger = Ledger()
    enter(ledger, 0, 3)
    enter(ledger, PAGE, 3)
    frames = ledger.replay()
    told = [next(frames)]
    amend(ledger, {1: entered(1)._replace(due=5)})
    told += frames
    numbers = [first for _, first, *_ in wire.Decoder().feed(b"".join(told))]
    assert numbers == [0, PAGE]
    assert replayed(ledger)[1].due == 5


def test_endless_amendments_take_no_more_memory() -> None:
    ledger = Ledger()
    enter(ledger, 0, 10)
    for due in range(1_000):
        amend(ledger, {4: entered(4)._replace(due=due)})
    (page,) = ledger._pages.values()
    assert page.kept <= 4 * page.count + module._PAGE_SLACK
    assert replayed(ledger)[4].due == due


def test_what_is_alike_is_written_once() -> None:
    """A callable that travels by value may have 32 KiB, and a page has 256 tasks with it."""
    ledger = Ledger()
    columns = [0, 10, bytes(30_000), None, list(range(PAGE))]
    ledger.record(0, PAGE, 0, wire.encode([Kind.SCHEDULE, 0, *columns]))
    ledger.move([5], State.CANCELLED)
    assert sum(map(len, ledger.replay())) < 40_000
    assert replayed(ledger)[6] == (0, 10, bytes(30_000), None, 6)


def test_no_move_is_possible_that_the_table_does_not_have() -> None:
    for before in MOVES:
        for after in MOVES:
            ledger = Ledger()
            enter(ledger, 0, 3)
            if before is not State.PENDING:
                ledger.move([0, 1, 2], State.RUNNING)
            if before is not State.RUNNING:
                ledger.move([0, 1, 2], before)
            possible = after in MOVES[before]
            assert ledger.move([0, 1], after) == 2 * possible
            assert ledger.move([2], after) == possible


def test_wrong_numbers_are_noticed() -> None:
    ledger = Ledger()
    enter(ledger, 0, 10)
    ledger.move([3], State.RUNNING)
    ledger.move([5], State.CANCELLED)
    for wrong in ([3], [5], [10], [10**9]):
        assert ledger.move(wrong, State.RUNNING) == 0
    assert ledger.move([1, 1], State.RUNNING) == 1
    assert ledger.move([7, 8, 9, 10, 11], State.RUNNING) == 3
    for number in (5, 10, 10**9):
        assert ledger.move([number], State.LOST) == 0
    assert ledger.move([3, 4], State.FINISHED) == 1
    assert ledger.move([7, 8, 9, 10], State.FINISHED) == 3
    for row in ([4], [PAGE], [3]):
        assert ledger.move(row, State.FINISHED) == 0
    assert list(replayed(ledger)) == list(ledger) == [0, 1, 2, 4, 6]
    assert ledger.move([1, 2], State.PENDING) == 1
    assert list(ledger.running_numbers()) == []


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
            ledger.move([number], State.LOST)
    after = sum(len(f) for p in ledger._pages.values() for f in p.frames)
    assert list(replayed(ledger)) == survivors
    assert after < before / 4
    assert ledger._kept <= 5 * len(ledger) + module._SLACK


def test_a_page_goes_with_its_last_task() -> None:
    ledger = Ledger()
    for page in range(3):
        enter(ledger, page * PAGE, PAGE)
        numbers = list(range(page * PAGE, (page + 1) * PAGE))
        ledger.move(numbers, State.RUNNING)
        ledger.move(numbers, State.FINISHED)
    assert len(ledger._pages) <= 1  # the newest page may still grow
    assert ledger._kept == sum(page.kept for page in ledger._pages.values())


def test_what_is_pending_comes_in_rows() -> None:
    ledger = Ledger()
    assert list(ledger.pending_rows()) == []
    for first in (0, PAGE):
        ledger.record(first, PAGE, 0, b"")
    ledger.record(2 * PAGE, 3, 0, b"")
    assert ledger.move([0, 5, 6, PAGE + 1], State.RUNNING) == 4
    assert ledger.move([5], State.FAILED) == 1
    rows = list(ledger.pending_rows())
    assert rows == [
        range(1, 5),
        range(7, PAGE),
        range(PAGE, PAGE + 1),
        range(PAGE + 2, 2 * PAGE),
        range(2 * PAGE, 2 * PAGE + 3),
    ]
    for row in rows:
        assert ledger.move(row, State.CANCELLED) == len(row)
    assert list(ledger) == [0, 6, PAGE + 1]
    assert list(ledger.pending_rows()) == []


@given(
    st.lists(st.integers(0, 32 * 1024), min_size=1, max_size=PAGE),
    st.lists(st.integers(0, PAGE - 1), max_size=PAGE),
    st.integers(0, 32 * 1024),
    st.integers(0, 32 * 1024),
    st.integers(1, 3),
)
def test_no_frame_is_over_its_limit_however_pages_are_merged(
    sizes: list[int], ended: list[int], function: int, context: int, attempts: int
) -> None:
    ledger = Ledger()
    records = [
        wire.make_record(wire.More(attempt=1 + n % attempts, captured=bytes(context) or None))
        for n in range(len(sizes))
    ]
    for number, size in enumerate(sizes):
        record = records[number]
        records_of_all = [record] if isinstance(record, list) else record
        columns = [0, 10, bytes(function), records_of_all, [bytes(size)]]
        ledger.record(number, 1, 0, wire.encode([Kind.SCHEDULE, number, *columns]))
    alive = set(range(len(sizes)))
    for number in ended:
        if number in alive:
            ledger.move([number], State.LOST)
            alive.remove(number)
    found: list[int] = []
    for frame in ledger.replay():
        ((_, first, _, _, functions, _, payloads),) = wire.Decoder().feed(frame)
        own = [first] if isinstance(first, int) else first
        found += own
        assert [len(payload) for payload in payloads] == [sizes[number] for number in own]
        assert set(functions if isinstance(functions, list) else [functions]) == {bytes(function)}
    assert found == sorted(alive)
    assert all(
        ledger.find(number) == (0, 10, bytes(function), records[number], bytes(sizes[number]))
        for number in alive
    )


def test_large_tasks_that_have_ended_are_not_kept_beside_far_off_ones() -> None:
    ledger = Ledger()
    for number in range(8_000):
        payload = bytes(4_000) if number % 2 else b""
        frame = wire.encode([Kind.SCHEDULE, number, 0, 10, 7, None, [payload]])
        ledger.record(number, 1, 0, frame, sizes={0: 4_000} if payload else {})
        if number % 2:
            ledger.move([number], State.LOST)
    kept_bytes = sum(map(len, ledger.replay()))
    assert kept_bytes < 200_000
    in_frames = sum(len(f) for page in ledger._pages.values() for f in page.frames)
    assert in_frames < 2 * module._LARGE_SLACK
    assert len(ledger) == 4_000


def test_there_may_be_many_schedulers() -> None:
    ledger = Ledger(1_000)
    ledger.record(0, 2, [3, 999], b"")
    assert ledger.scheduler(1) == 999
