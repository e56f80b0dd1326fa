"""Values to payloads and back: exact in their types, each the cheapest way."""

from __future__ import annotations

import asyncio
import collections
import datetime
import http
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.payloads import (
    is_plain,
)
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler.errors import NotShippable

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(st.characters()),
        st.sampled_from(["\udc80", "a\ud800"]),
        st.binary(),
        st.binary().map(bytearray),
        st.datetimes(timezones=st.sampled_from([datetime.UTC, None])),
        st.timedeltas(),
        st.complex_numbers(allow_nan=False),
        st.frozensets(st.integers()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.integers(), st.text()), inner, max_size=3),
        st.lists(inner, max_size=3).map(collections.deque),
    ),
    max_leaves=12,
)


def types_of(value: Any) -> Any:
    if isinstance(value, list | tuple | collections.deque):
        return type(value), [types_of(v) for v in value]
    if isinstance(value, dict):
        return dict, [(types_of(k), types_of(v)) for k, v in value.items()]
    return type(value)


@given(values)
def test_values_keep_their_exact_types_both_ways(value: Any) -> None:
    host, worker = HostCatalog(), WorkerCatalog()
    there = worker.decode(host.encode(value))
    back = host.decode_result(worker.encode(there))
    assert (back, types_of(back)) == (value, types_of(value))
    scalars = host.encode_scalars([value])
    if scalars is not None:
        assert types_of(worker.decode(scalars)) == types_of([value])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, "itself"),
        ((1 << 64) - 1, "itself"),
        (1 << 64, "pickle"),
        (-(1 << 63) - 1, "pickle"),
        (True, "itself"),
        (None, "itself"),
        (0.5, "itself"),
        ("x" * 256, "itself"),
        ("x" * 257, "msgpack"),
        ("ä", "msgpack"),
        ("\udc80", "pickle"),
        (b"x", "msgpack"),
        (bytearray(b"x"), "pickle"),
        ((1, 2), "pickle"),
        ([1, 2], "pickle"),
    ],
)
def test_each_value_goes_the_cheapest_way_that_is_exact(value: Any, kind: str) -> None:
    payload = HostCatalog().encode(value)
    assert is_plain(value) == (kind == "itself")
    if kind == "itself":
        assert payload is value
    else:
        assert isinstance(payload, bytes)
        assert (payload[:1] == pickle.PROTO) == (kind == "pickle")
    back = WorkerCatalog().decode(payload)
    assert (type(back), back) == (type(value), value)


def test_only_scalars_make_a_list_of_scalars() -> None:
    host = HostCatalog()
    assert host.encode_scalars([1, "a", b"", None]) == wire.pack([1, "a", b"", None])
    for values in ([1, (2,)], [1 << 64], ["\udc80"], [True, []]):
        assert host.encode_scalars(values) is None


def test_subclasses_of_scalars_stay_what_they_are() -> None:
    value = http.HTTPStatus.OK  # msgpack would pack it as 200
    assert WorkerCatalog().decode(HostCatalog().encode(value)) is value
    assert HostCatalog().encode_scalars([value]) is None


class Panic(BaseException):
    """An exception like those of Rust libraries."""


class Panicking:
    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        raise self.kind


async def take_one(thing: object) -> None: ...


@pytest.mark.parametrize("kind", [Panic, SystemExit, asyncio.CancelledError, MemoryError])
def test_whatever_pickling_raises_is_a_refusal(kind: type[BaseException]) -> None:
    shipper = HostShipper(HostCatalog())
    coro = take_one(Panicking(kind))
    with pytest.raises(NotShippable, match="argument 'thing' of take_one"):
        shipper.take(coro)
    coro.close()
    with pytest.raises(NotShippable):
        shipper.take_arguments((Panicking(kind),))
