"""Values to payloads and back: exact in their types, or refused with what to do."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import datetime
import http
import io
import multiprocessing
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._shipping.definitions import HostCatalog, WorkerCatalog
from aioscheduler._shipping.pickling import EMPTY, SharedCode, check_inheritable, is_plain
from aioscheduler._shipping.shipping import HostShipper
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


def test_what_is_not_all_scalars_is_no_list_of_them() -> None:
    host = HostCatalog()
    assert host.encode_scalars([1, "a", b"", None]) == wire.pack([1, "a", b"", None])
    for values in ([1, (2,)], [1 << 64], ["\udc80"], [True, []]):
        assert host.encode_scalars(values) is None


def test_subclasses_of_scalars_stay_what_they_are() -> None:
    value = http.HTTPStatus.OK  # to msgpack it is a 200
    assert WorkerCatalog().decode(HostCatalog().encode(value)) is value
    assert HostCatalog().encode_scalars([value]) is None


def test_the_streams_of_a_process_are_those_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(io.BytesIO()) as here, io.TextIOWrapper(io.BytesIO()) as there:
        monkeypatch.setattr(sys, "stdout", here)
        payload = HostCatalog().pickle(here)
        with pytest.raises(pickle.PicklingError, match="belongs to one process"):
            HostCatalog().pickle(there)
        monkeypatch.setattr(sys, "stdout", there)
        assert WorkerCatalog().decode(payload) is there


def test_shared_code_gives_one_function_and_a_new_one_for_each_closure() -> None:
    space = {"__name__": "somewhere", "BASE": 10}
    shared = SharedCode((lambda n: BASE + n).__code__, space)  # type: ignore[name-defined]  # noqa: F821
    assert shared.function is shared.function
    assert shared.function(1) == 11
    word = "a"
    captured = SharedCode((lambda: word).__code__, space)
    assert captured.function is not captured.function
    assert captured.make(["b"])() == "b"
    with pytest.raises(NameError, match="word"):
        captured.make([EMPTY])()  # it has no value there, as it had none here


def test_only_primitives_for_spawned_processes_can_be_handed_on() -> None:
    check_inheritable(multiprocessing.get_context("spawn").Lock())
    forked = multiprocessing.get_context("fork").Lock()
    with pytest.raises(pickle.PicklingError, match=r"get_context\('spawn'\)"):
        check_inheritable(forked)
    with pytest.raises(RuntimeError):  # nothing is left of the pretence that a process is made
        pickle.dumps(multiprocessing.get_context("spawn").Lock())


async def test_what_belongs_to_this_process_is_refused_with_what_to_do() -> None:
    shipper = HostShipper(HostCatalog())
    loop = asyncio.get_running_loop()
    inner = asyncio.sleep(0)
    for thing, hint in (
        (loop, "a task asks for its own, asyncio.get_running_loop"),
        (loop.create_future(), "await it here, and pass its result"),
        (asyncio.current_task(), "await it here"),
        (concurrent.futures.Future[int](), "by asyncio.wrap_future"),
        (inner, "have the task call and await it"),
    ):
        coro = asyncio.sleep(0, thing)
        with pytest.raises(NotShippable, match=hint):
            shipper.take(coro)
        coro.close()
    waiting = asyncio.wait_for(inner, 5)
    with pytest.raises(NotShippable, match="the argument 'fut' of wait_for.*timeout="):
        shipper.take(waiting)
    waiting.close()
    inner.close()
