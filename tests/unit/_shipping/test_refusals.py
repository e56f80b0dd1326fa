"""Objects that belong to one process are refused, with a hint."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import pickle
import sys

import pytest

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.refusals import cannot_travel
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler.errors import NotShippable


def test_the_streams_of_a_process_are_those_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(io.BytesIO()) as here, io.TextIOWrapper(io.BytesIO()) as there:
        monkeypatch.setattr(sys, "stdout", here)
        payload = HostCatalog().pickle(here)
        with pytest.raises(pickle.PicklingError, match="belongs to one process"):
            HostCatalog().pickle(there)
        monkeypatch.setattr(sys, "stdout", there)
        assert WorkerCatalog().decode(payload) is there


async def test_what_belongs_to_this_process_is_refused_with_what_to_do() -> None:
    shipper = HostShipper(HostCatalog())
    loop = asyncio.get_running_loop()
    inner = asyncio.sleep(0)
    for thing, hint in (
        (loop, "a task asks for its own, asyncio.get_running_loop"),
        (loop.create_future(), "await it here, and pass its result"),
        (asyncio.current_task(), "await it here"),
        (concurrent.futures.Future[int](), "by asyncio.wrap_future"),
        (inner, "schedule an async function that calls and awaits it"),
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


def test_a_refusal_says_what_to_do_with_the_users_own() -> None:
    error = TypeError("no way")
    assert cannot_travel(error).startswith("cannot travel to a worker process: no way. Pass plain")
    assert "put it in a module" not in cannot_travel(error)
    assert "or put it in a module of its own" in cannot_travel(error, "it")
