from __future__ import annotations

import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._transport import wire
from aioscheduler._transport.wire import Decoder, Kind, More, WireError

fields = st.recursive(
    st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=40), st.text()),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)
frames = st.builds(lambda kind, rest: [kind, *rest], st.sampled_from(Kind), st.lists(fields))


@given(st.lists(frames, max_size=6), st.data())
def test_any_split_of_the_bytes_gives_the_frames(
    sent: list[wire.Frame], data: st.DataObject
) -> None:
    stream = b"".join(map(wire.encode, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    got: list[wire.Frame] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:stop])
    assert got == sent


@given(frames)
def test_a_truncated_frame_is_no_frame(frame: wire.Frame) -> None:
    encoded = wire.encode(frame)
    for length in range(len(encoded)):
        assert list(Decoder().feed(encoded[:length])) == []


@given(st.binary(max_size=200))
def test_garbage_is_an_error_or_nothing(garbage: bytes) -> None:
    try:
        for frame in Decoder().feed(garbage):
            assert frame[0] in set(Kind)
    except WireError:
        pass


@given(frames, st.data())
def test_a_flipped_byte_never_raises_anything_else(frame: wire.Frame, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(frame))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        list(Decoder().feed(bytes(encoded)))


@pytest.mark.parametrize("body", [[99], ["x"], [], {"a": 1}, 3, None, [[1]]])
def test_what_does_not_begin_with_a_kind_is_refused(body: object) -> None:
    packed = msgpack.packb(body)
    with pytest.raises(WireError):
        list(Decoder().feed(len(packed).to_bytes(4) + packed))


def test_no_frame_is_longer_than_the_limit() -> None:
    with pytest.raises(WireError, match="over the limit"):
        wire.encode([Kind.DEFINE, b"x" * wire.MAX_FRAME, True])
    for length in (0, wire.MAX_FRAME + 1, 2**32 - 1):
        with pytest.raises(WireError, match="cannot have"):
            list(Decoder().feed(length.to_bytes(4)))


@given(st.binary(max_size=3 * wire.CHUNK))
def test_what_is_cut_comes_together_again(body: bytes) -> None:
    parts = list(wire.cut(body))
    assert b"".join(part for part, _ in parts) == body
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(part) <= wire.CHUNK for part, _ in parts)
    collector = wire.Parts()
    for _ in range(2):
        *partial, whole = (collector.add(*part) for part in parts)
        assert whole == body
        assert partial == [None] * (len(parts) - 1)


def test_parts_are_collected_in_place() -> None:
    parts = wire.Parts()
    collected = parts._body
    for _ in range(3):
        parts.add(b"part", False)
    assert parts._body is collected
    assert parts.add(b" last", True) == b"partpartpart last"


def test_any_text_fits_a_frame() -> None:
    told = wire.text("x" * 10_000_000 + "\udce9 ends")
    assert told.endswith("\\udce9 ends")
    wire.encode([Kind.FATAL, told])


def test_a_record_says_what_was_put_into_it() -> None:
    for more in (More(), More(7), More(7, None, 3, True, 2, 10**18), More(given=0)):
        record = wire.make_record(more)
        assert wire.read_record(wire.unpack(wire.pack(record))) == more
    assert wire.make_record(More()) is None
    assert wire.make_record(More(7)) == 7


ONE_EACH: dict[str, Any] = {
    "options": 7,
    "alias": 1 << 50,
    "attempt": 3,
    "confirmed": 1,
    "failed": 2,
    "given": 10**18,
    "captured": b"values",
}
"""For each field of `More` a value that is not its default."""


def test_records_are_made_and_read_with_each_field() -> None:
    assert list(ONE_EACH) == list(More._fields)
    for field, value in ONE_EACH.items():
        more = More()._replace(**{field: value})
        record = wire.make_record(more)
        assert wire.read_record(wire.unpack(wire.pack(record))) == more
        assert wire.options_of(record) == more.options
        assert wire.captured_of(record) == more.captured
        assert wire.confirmed_of(record) == more.confirmed
        run = more.options, more.alias, more.attempt, more.given, more.captured
        if isinstance(record, list):
            assert wire.run_of(record) == run
        after = more._replace(attempt=more.attempt + 1, failed=more.failed + 1)
        assert more.after_failure() == after


def test_after_a_plain_failure_a_task_need_not_be_alone_any_more() -> None:
    assert More(confirmed=wire.ALONE).after_failure().confirmed == 1


def test_the_record_of_a_new_task_is_made_fast() -> None:
    for options, captured in ((None, None), (7, None), (None, b"values"), (7, b"values")):
        record = wire.record_of(options, captured)
        assert record == wire.make_record(More(options, captured=captured))


def test_a_column_has_an_item_for_each_task() -> None:
    record = [None, 1, 1]
    assert list(wire.column(5, 3)) == [5] * 3
    assert list(wire.column(None, 2)) == [None] * 2
    assert list(wire.column([record], 2)) == [record] * 2
    assert list(wire.column([record], 1)) == [record]
    assert list(wire.column([record, 7], 2)) == [record, 7]
    assert list(wire.column([], 0)) == []
