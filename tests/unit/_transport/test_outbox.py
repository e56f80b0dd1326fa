from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._scheduling.states import State
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import FORGET, FORGET_AT, DefinitionLog, leased
from aioscheduler._transport.ledger import PAGE
from aioscheduler._transport.outbox import Outbox
from aioscheduler._transport.wire import FRAME_BYTES, Kind


def frames(outbox: Outbox) -> list[Any]:
    decoder = wire.Decoder()
    return [f for data in outbox.take()[0] for f in decoder.feed(data)]


def numbers(frame: Any) -> Any:
    first = frame[1]
    return first if isinstance(first, list) else range(first, first + len(frame[-1]))


def test_a_turn_is_one_frame() -> None:
    outbox = Outbox(DefinitionLog())
    assert [outbox.add(s, 10 + s, 5, b"p%d" % s) for s in range(3)] == [0, 1, 2]
    assert not outbox.full
    assert frames(outbox) == [
        [Kind.SCHEDULE, 0, [0, 1, 2], [10, 11, 12], [5, 5, 5], None, [b"p0", b"p1", b"p2"]]
    ]
    assert frames(outbox) == []
    assert [outbox.scheduler(n) is not None for n in range(4)] == [True, True, True, False]


def test_a_page_or_many_bytes_are_sent_at_once() -> None:
    outbox = Outbox(DefinitionLog())
    for _ in range(PAGE - 1):
        outbox.add(0, 0, 0, b"")
    assert not outbox.full
    outbox.add(0, 0, 0, b"")
    assert outbox.full
    frames(outbox)
    assert not outbox.full
    for _ in range(FRAME_BYTES // 30_000 + 1):
        outbox.add(0, 0, 0, b"x" * 30_000)
    assert outbox.full
    assert all(len(data) < 2 * FRAME_BYTES for data in outbox.take()[0])


def test_definitions_come_first_and_once() -> None:
    log = DefinitionLog()
    outbox = Outbox(log)
    log.write(1, "one")
    outbox.add(0, 0, 0, b"")
    long = log.write(2, b"x" * 3 * wire.CHUNK)
    outbox.add(0, 0, 1, b"")
    found = frames(outbox)
    assert [frame[0] for frame in found] == [Kind.DEFINE] * 5 + [Kind.SCHEDULE]
    assert b"".join(frame[1] for frame in found[1:5]) == log.lines[long]
    assert [frame[2] for frame in found[:5]] == [True, False, False, False, True]
    outbox.add(0, 0, 1, b"")
    assert [frame[0] for frame in frames(outbox)] == [Kind.SCHEDULE]


def test_the_definitions_that_a_task_uses_are_kept_until_it_ends() -> None:
    log = DefinitionLog()
    outbox = Outbox(log)
    code, part, whole, value, shared = (log.write(0, names=()) for _ in range(5))
    bound = outbox.add(0, 0, log.lease(code), leased(b"pickle", [log.lease(part)]))
    outbox.add(0, 0, 7, 1)
    large = outbox.add(0, 0, 7, leased(b"x" * (wire.BLOB_LIMIT + 1), [log.lease(part)]))
    of_one = outbox.add(0, 0, 7, 1, context(leased(b"value", [log.lease(value)])))
    outbox.pack()
    record = context(leased(b"shared", [log.lease(shared)]))
    many = outbox.add_many(0, 0, leased(b"partial", [log.lease(whole)]), [1, 2], record)
    del record
    assert list(log.unused()) == []
    outbox.take()
    outbox.ledger.move([bound], State.CANCELLED)
    assert list(log.unused()) == [code]
    outbox.ledger.move([large, many], State.CANCELLED)
    assert list(log.unused()) == [part]
    outbox.ledger.move([of_one], State.CANCELLED)
    assert list(log.unused()) == [value]
    outbox.ledger.move([many + 1], State.CANCELLED)
    assert set(log.unused()) == {whole, shared}


def context(values: bytes) -> wire.Record:
    return wire.make_record(wire.More(captured=values))


def test_contexts_count_as_payloads_do() -> None:
    outbox = Outbox(DefinitionLog())
    for number in range(PAGE - 1):
        outbox.add(0, 0, 0, 1, context(b"%d" % number * 10_000))
    outbox.add_many(0, 0, 0, [1] * PAGE, context(b"x" * wire.BLOB_LIMIT))
    sent = outbox.take()[0]
    assert all(len(frame) < 2 * FRAME_BYTES for frame in sent)
    records = [
        wire.captured_of(record)
        for frame in wire.Decoder().feed(b"".join(sent))
        for record in wire.column(frame[5], len(frame[-1]))
    ]
    assert records[:-PAGE] == [b"%d" % number * 10_000 for number in range(PAGE - 1)]
    assert records[-PAGE:] == [b"x" * wire.BLOB_LIMIT] * PAGE


def test_large_contexts_that_have_ended_are_not_kept() -> None:
    outbox = Outbox(DefinitionLog())
    for number in range(4_000):
        outbox.add(0, 0, 0, 1, context(bytes(8_000)) if number % 2 else None)
        if number % 2:
            outbox.pack()
            outbox.ledger.move([number], State.LOST)
    outbox.take()
    in_frames = sum(len(f) for page in outbox.ledger._pages.values() for f in page.frames)
    assert in_frames < 14_000_000


def test_retired_definitions_are_forgotten_though_nothing_is_scheduled() -> None:
    log = DefinitionLog()
    outbox = Outbox(log)
    lines = [log.write(0, names=()) for _ in range(FORGET_AT + 20)]
    assert len(frames(outbox)) == len(lines)
    for number in lines:
        log.retire(number)
    ((kind, line, last),) = frames(outbox)
    assert (kind, last) == (Kind.DEFINE, True)
    assert wire.unpack(line) == [FORGET, 1, lines]
    assert frames(outbox) == []


def test_a_new_worker_is_sent_everything_valid() -> None:
    log = DefinitionLog()
    log.write(1, "one")
    outbox = Outbox(log)
    for number in range(4):
        assert outbox.add(number % 2, number, 0, b"%d" % number) == number
    outbox.request(Kind.CANCEL, 0, 3)
    outbox.take()
    outbox.ledger.move([2], State.LOST)
    outbox.request(Kind.CANCEL, 0, 1)
    unsent = outbox.add(0, 4, 0, b"4")
    large = outbox.add(0, 0, 0, b"x" * (wire.BLOB_LIMIT + 1))
    told, blobs = outbox.restart()
    assert [number for number, _ in blobs] == [large]
    later = outbox.add(0, 5, 0, b"5")
    found = list(wire.Decoder().feed(b"".join(told)))
    assert found[0] == [Kind.DEFINE, log.lines[0], True]
    assert [n for frame in found[1:] for n in numbers(frame)] == [0, 1, 3, unsent, large]
    assert later == PAGE
    assert [list(numbers(frame)) for frame in frames(outbox)] == [[later]]
    assert outbox.take() == ([], [])


def test_a_large_payload_is_left_out_and_kept() -> None:
    outbox = Outbox(DefinitionLog())
    large = b"x" * (wire.BLOB_LIMIT + 1)
    outbox.add(0, 0, 0, large)
    data, blobs = outbox.take()
    (frame,) = wire.Decoder().feed(data[0])
    assert frame[-1] == [wire.IN_BLOB]
    assert blobs == [(0, large)]
    assert outbox.ledger.blobs == {0: large}
    outbox.ledger.move([0], State.LOST)
    assert outbox.ledger.blobs == {}


def test_a_cancel_comes_after_its_task() -> None:
    outbox = Outbox(DefinitionLog())
    outbox.request(Kind.CANCEL, 0, outbox.add(0, 0, 0, b""))
    outbox.add(0, 0, 0, b"")
    assert [frame[0] for frame in frames(outbox)] == [Kind.SCHEDULE, Kind.CANCEL]
    for number in range(PAGE + 1):
        outbox.request(Kind.CANCEL, 0, number)
    assert [len(frame[2]) for frame in frames(outbox)] == [PAGE, 1]


def test_many_share_their_columns() -> None:
    outbox = Outbox(DefinitionLog())
    outbox.add(1, 1, 1, b"single")
    assert outbox.add_many(2, 7, b"function", [b"a", b"b"]) == 1
    assert outbox.full
    assert frames(outbox)[1] == [Kind.SCHEDULE, 1, 2, 7, b"function", None, [b"a", b"b"]]
    assert outbox.ledger.find(2) == (2, 7, b"function", None, b"b")


@given(st.lists(st.one_of(st.none(), st.integers(1, PAGE)), max_size=30))
def test_no_frame_crosses_a_page_and_no_number_comes_twice(steps: list[int | None]) -> None:
    outbox = Outbox(DefinitionLog())
    given_: list[int] = []
    for count in steps:
        if count is None:
            given_.append(outbox.add(0, 0, 0, b""))
        else:
            first = outbox.add_many(0, 0, 0, [b""] * count)
            given_ += range(first, first + count)
    sent = [number for frame in frames(outbox) for number in numbers(frame)]
    assert sent == given_ == sorted(set(given_))
    assert list(outbox.ledger) == given_
    outbox2 = Outbox(DefinitionLog())
    for count in steps:
        if count:
            outbox2.add_many(0, 0, 0, [b""] * count)
    assert all(f[1] // PAGE == numbers(f)[-1] // PAGE for f in frames(outbox2))
    for number in given_:
        outbox.ledger.move([number], State.LOST)
    assert len(outbox.ledger._pages) <= 1


def test_a_task_that_is_sent_again_comes_after_earlier_requests_for_it() -> None:
    """Otherwise the request would apply to its new schedule."""
    outbox = Outbox(DefinitionLog())
    outbox.add(0, 5, 0, b"")
    outbox.take()
    outbox.request(Kind.WITHDRAW, 0, 0)
    entries = outbox.ledger.read([0])
    outbox.amend({0: entries[0]._replace(due=9)}, send=True)
    outbox.request(Kind.WITHDRAW, 0, 0)
    kinds = [frame[0] for frame in frames(outbox)]
    assert kinds == [Kind.WITHDRAW, Kind.SCHEDULE, Kind.WITHDRAW]


def test_what_is_amended_for_the_next_worker_is_not_sent_to_this_one() -> None:
    outbox = Outbox(DefinitionLog())
    for number in range(PAGE + 2):
        outbox.add(0, number, 0, number)
    outbox.take()
    changed = {n: entry._replace(due=7) for n, entry in outbox.ledger.read([1, PAGE + 1]).items()}
    outbox.amend(changed, send=False)
    assert frames(outbox) == []
    outbox.amend(changed, send=True)
    assert [frame[1] for frame in frames(outbox)] == [[1], [PAGE + 1]]  # no frame crosses a page
    assert outbox.ledger.read([1, PAGE + 1]) == changed


def test_announcements_are_confirmed_together() -> None:
    outbox = Outbox(DefinitionLog())
    assert frames(outbox) == []
    outbox.confirm(1)
    outbox.confirm(0)
    assert outbox.answers
    assert frames(outbox) == [[Kind.CONFIRM, [1, 0]]]
    assert not outbox.answers
    assert frames(outbox) == []
    for index in range(2 * PAGE + 1):
        outbox.confirm(index)
    indices = [indices for _, indices in frames(outbox)]
    assert sum(indices, []) == list(range(2 * PAGE + 1))
    assert max(map(len, indices)) == PAGE  # no frame is too long
    outbox.confirm(2)
    outbox.restart()
    assert frames(outbox) == []
