"""Calls of durable tasks for links, and their notes in the file."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
import reminders

from aioscheduler._durable.records import Function
from aioscheduler._routing.localentry import Unreadable
from aioscheduler._routing.storedcalls import LocalCalls, Notes, RemoteCalls, Stored
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler.errors import NotDurable
from aioscheduler.options import Options
from aioscheduler.registry import Durable, find

SEVEN = wire.pack([7])
other: ContextVar[Any] = ContextVar("other")


def durable(name: str) -> Durable:
    found = find(name)
    assert found is not None
    return found


@pytest.fixture
def shipper() -> HostShipper:
    return HostShipper(HostCatalog())


@pytest.fixture(autouse=True)
def clean() -> None:
    reminders.done.clear()


# ---- for other processes


def test_a_function_has_one_number_for_ever(shipper: HostShipper) -> None:
    calls = RemoteCalls(shipper)
    note, once = durable("test.note"), durable("test.once")
    function, payload, record = calls.make(Stored(note, SEVEN), 5)
    assert (payload, record) == (SEVEN, None)
    gc.collect()
    shipper.catalog.look_after()
    assert calls.function(note) == function
    assert shipper.name_of(function) == f"{reminders.__name__}:note"
    assert calls.function(once) != function


def test_a_function_that_is_not_registered_is_named_to_the_worker(shipper: HostShipper) -> None:
    calls = RemoteCalls(shipper)
    function, payload, record = calls.make(Stored(Function(1, "gone", "m:gone", False), SEVEN), 5)
    assert isinstance(function, bytes)
    assert b"m:gone" in function
    assert (payload, record) == (SEVEN, None)


def test_what_most_tasks_have_is_made_once(shipper: HostShipper) -> None:
    calls = RemoteCalls(shipper)
    retried = durable("test.retried")
    plain = Stored(retried, SEVEN)
    first = calls.record(plain)
    assert calls.record(plain._replace(payload=b"x")) is first
    changes: dict[str, Any] = {
        "confirmed": 1,
        "attempt": 4,
        "failed": 3,
        "given": 77,
        "captured": b"c",
        "label": "mine",
    }
    made = {
        name: wire.read_record(calls.record(plain._replace(**{name: value})))
        for name, value in changes.items()
    }
    for name in ("confirmed", "attempt", "failed", "given", "captured"):
        assert getattr(made[name], name) != getattr(wire.read_record(first), name)
    assert made["label"].options != wire.read_record(first).options
    assert calls.record(plain) == first
    named = shipper.label(calls.function(retried), calls.record(plain._replace(label="mine")))
    assert named == "mine"


def test_many_calls_have_one_record(shipper: HostShipper) -> None:
    calls = RemoteCalls(shipper)
    stored = Stored(durable("test.once"), b"", confirmed=1)
    function, payloads, record = calls.make_many(stored, [SEVEN, SEVEN])
    assert payloads == [SEVEN, SEVEN]
    assert (function, record) == (calls.function(stored.function), calls.record(stored))
    assert wire.read_record(record).confirmed == 1


# ---- for this process


@pytest.fixture
def local() -> Any:
    return LocalCalls(WorkerCatalog(), Propagation((reminders.request_id,)))


async def test_the_function_is_called_again_in_each_attempt(local: Any) -> None:
    stored = Stored(durable("test.note"), SEVEN, attempt=4, failed=2, given=50)
    attempts, (options, _, captured) = local.make(stored, 70)
    assert (attempts.attempt, attempts.number, attempts.start) == (4, 3, 70)
    assert (options.name, captured) == (f"{reminders.__name__}:note", None)
    assert [await attempts.begin(), await attempts.begin()] == [7, 7]
    assert local.make(stored._replace(given=None), 70)[0].start is None
    assert local.make(stored._replace(label="mine"), 70)[1][0].name == "mine"


async def test_many_are_called_with_their_payloads(local: Any) -> None:
    call, calls, (options, _, _) = local.make_many(
        Stored(durable("test.note"), b"", "mine"), [SEVEN, wire.pack([8])]
    )
    assert options.name == "mine"
    assert [await call(*args) for args in calls] == reminders.done == [7, 8]


async def test_what_was_captured_is_restored_where_it_runs(local: Any) -> None:
    captured = notes(reminders.request_id).take([1, "r1"])
    attempts, _ = local.make(Stored(durable("test.request"), SEVEN, captured=captured), 5)
    context = copy_context()
    await asyncio.create_task(context.run(attempts.begin), context=context)  # type: ignore[arg-type]
    assert reminders.done == [(7, "r1")]
    assert reminders.request_id.get(None) is None


@pytest.mark.parametrize(
    ("stored", "unknown"),
    [
        (Stored(durable("test.note"), b"\xc1"), False),
        (Stored(durable("test.note"), wire.pack([1, 2, 3])), False),
        (Stored(durable("test.note"), wire.pack([])), False),
        (Stored(durable("test.note"), SEVEN, captured=b"\xc1"), False),
        (Stored(Function(1, "test.nobody", "reminders:nobody", False), SEVEN), True),
    ],
)
def test_what_cannot_be_read_or_called_says_why(local: Any, stored: Stored, unknown: bool) -> None:
    with pytest.raises(Unreadable) as caught:
        local.make(stored, 5)[0].begin()
    assert caught.value.unknown is unknown
    assert caught.value.__cause__ is not None


async def test_a_function_may_be_registered_late(local: Any) -> None:
    attempts, _ = local.make(Stored(Function(1, "test.note", "reminders:old", False), SEVEN), 5)
    assert await attempts.begin() == 7


# ---- notes


def notes(*items: Any) -> Notes:
    propagation = Propagation(items) if items else None
    catalog = HostCatalog()
    catalog.propagation = propagation
    return Notes(propagation, HostShipper(catalog), WorkerCatalog())


def test_most_tasks_need_no_note() -> None:
    assert notes().write(None, None) is None
    assert notes().read(None) == (None, None)
    assert notes().take(None) is None
    written = notes().write("mine", None)
    assert written is not None
    assert notes(reminders.request_id).read(written) == ("mine", None)


def capture_user() -> str:
    return "u1"


def restore_user(value: str) -> None: ...


def test_values_go_with_the_names_of_what_they_are_of(caplog: pytest.LogCaptureFixture) -> None:
    pair = capture_user, restore_user
    before = notes(reminders.request_id, pair, other)
    payload = before.take([5, "r1", 9])  # values of the first and the third item
    note = before.write("mine", payload)
    assert before.read(note) == ("mine", payload)
    reader = WorkerCatalog()
    moved = notes(other, reminders.request_id, pair)
    label, found = moved.read(note)
    assert label == "mine"
    assert found is not None
    assert reader.decode(found) == [3, 9, "r1"]
    assert not caplog.messages
    less = notes(reminders.request_id)
    for _ in range(2):
        _, found = less.read(note)
        assert found is not None
        assert reader.decode(found) == [1, "r1"]
    assert sorted(message.partition(",")[0] for message in caplog.messages) == [
        f"durable tasks have values of the context variable {__name__}:other",
        f"durable tasks have values of the pair of {__name__}:capture_user()",
    ]  # once
    assert notes().read(note) == ("mine", None)


def test_a_task_runs_without_values_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    note = notes(other).write(None, b"\xc1")
    assert notes(reminders.request_id).read(note) == (None, None)
    assert "it runs without" in caplog.messages[-1]


def test_values_must_be_readable_by_the_next_host() -> None:
    class Local:
        pass

    with pytest.raises(NotDurable, match="other"):
        notes(other).take([1, Local()])


def test_the_options_are_those_of_the_function_today() -> None:
    retried = durable("test.retried")
    assert Stored(retried, SEVEN).options == retried.options
    assert Stored(retried, SEVEN, "mine").options == retried.options._replace(name="mine")
    assert Stored(Function(1, "f", "m:f", False), SEVEN, "mine").options == Options(name="mine")
