"""The forms of a payload, none of which is mistaken for another."""

from __future__ import annotations

import http
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._shipping.payloads import (
    PICKLED,
    Scalars,
    is_plain,
    make_failure,
    names_in,
    read_failure,
    text_in,
    with_names,
    without_names,
)
from aioscheduler._transport import wire


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (7, True),
        ((1 << 64) - 1, True),
        (1 << 64, False),
        (-(1 << 63) - 1, False),
        (True, True),
        (None, True),
        (0.5, True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("ä", False),
        (b"x", False),
        ((1, 2), False),
        (http.HTTPStatus.OK, False),
    ],
)
def test_what_is_plain_is_its_own_payload(value: Any, plain: bool) -> None:
    assert is_plain(value) == plain
    if plain:
        assert wire.unpack(wire.pack(value)) == value


@given(st.lists(st.integers(0, 1 << 40), min_size=1), st.binary())
def test_names_are_in_front_and_come_off_again(names: list[int], rest: bytes) -> None:
    pickled = bytes([PICKLED]) + rest
    named = with_names(pickled, names)
    assert names_in(named) == names
    assert without_names(named) == pickled
    assert named[0] not in (pickled[0], wire.pack([None] * 3)[0], wire.pack(b"x")[0])


def test_what_names_nothing_has_nothing_in_front() -> None:
    assert with_names(b"\x80", []) == b"\x80"
    for payload in (b"\x80", wire.pack([1]), 5, None, "text"):
        assert names_in(payload) == ()


@pytest.mark.parametrize("names", [[], [True], ["1"], 7])
def test_invalid_names_are_refused(names: Any) -> None:
    packed = wire.pack(names)
    with pytest.raises(wire.WireError, match="no names of definitions"):
        names_in(with_names(b"", [1])[:1] + len(packed).to_bytes(4) + packed)


def test_one_large_value_does_not_stay_in_the_packer() -> None:
    scalars = Scalars()
    before = scalars.pack_plain
    assert scalars.pack([1, "a"]) == wire.pack([1, "a"])
    assert scalars.pack_plain == before
    large = b"x" * (wire.BLOB_LIMIT + 1)
    assert wire.unpack(scalars.pack(large)) == large
    assert scalars.pack_plain != before


@pytest.mark.parametrize("lines", [[], [3, 70_000]])
def test_the_traceback_of_a_failure_is_read_without_the_exception(lines: list[int]) -> None:
    payload = make_failure("Traceback\nKeyError: \udc80\n", b"what cannot be unpickled", lines)
    assert text_in(payload) == "Traceback\nKeyError: \\udc80\n"
    assert read_failure(payload) == (text_in(payload), b"what cannot be unpickled")
    assert list(names_in(payload)) == lines


def test_the_end_of_a_long_traceback_is_kept() -> None:
    text = text_in(make_failure("x" * 200_000 + "the end", b"", []))
    assert len(text) <= wire.CHUNK
    assert text.endswith("the end")


@given(st.one_of(st.none(), st.integers(), st.text(), st.binary(), st.just([1, 2])))
def test_a_payload_that_is_not_a_failure_has_no_text(payload: Any) -> None:
    """Unless the bytes happen to be a failure."""
    text = text_in(payload)
    assert not text or read_failure(payload)[0] == text


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\xc1\xff\xff\xff\xff", b"\x80\x05N.", wire.pack([1, b""])]
)
def test_nonsense_has_no_text(payload: bytes) -> None:
    assert text_in(payload) == ""
