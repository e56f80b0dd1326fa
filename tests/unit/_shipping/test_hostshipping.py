"""What is taken for all workers of a manager: records, contexts, what a process is told first."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Script

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper, adopt_call
from aioscheduler._shipping.payloads import with_names
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._shipping.shipping import MOST_CAPTURED, Shipper
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import Leased
from aioscheduler._transport.entry import InsideRequest
from aioscheduler.errors import NotShippable
from aioscheduler.options import Options
from aioscheduler.retry import Retry

variable: ContextVar[Any] = ContextVar("variable")
other: ContextVar[Any] = ContextVar("other", default=0)

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.tuples(st.text(), st.integers()),
    st.dictionaries(st.text(), st.integers()),
    st.just(Options(name="one")),
)


def make(*items: Any) -> HostShipper:
    shipper = HostShipper(HostCatalog())
    shipper.catalog.propagation = Propagation(items or (variable, other))
    return shipper


@given(st.lists(VALUES, min_size=1, max_size=70))
def test_values_arrive_as_they_are(values: list[Any]) -> None:
    captured = [(1 << len(values)) - 1, *values]
    taken = make().take_captured(captured)
    assert taken is not None
    arrived = WorkerCatalog().decode(wire.unpack(wire.pack(taken)))
    assert list(arrived) == captured
    assert list(map(type, arrived)) == list(map(type, captured))


def test_plain_values_take_little_and_nothing_takes_nothing() -> None:
    shipper = make()
    payload = shipper.take_captured([1, "request-1"])
    assert payload is not None
    assert len(payload) == len("request-1") + 3
    assert shipper.take_captured(None) is None
    assert shipper.take_captured([0]) is None
    assert shipper.take_record(None, [0]) is None
    assert shipper.take_record(None, None) is None


def test_a_record_has_options_and_context() -> None:
    shipper = make()
    options = shipper.take_options(Options(timeout=1.0))
    assert shipper.take_record(Options(timeout=1.0), None) == options
    more = wire.read_record(shipper.take_record(Options(timeout=1.0), [1, "r1"]))
    assert (more.options, more.attempt) == (options, 1)
    assert shipper.catalog.decode(more.captured) == [1, "r1"]
    alone = wire.read_record(shipper.take_record(None, [1, "r1"]))
    assert (alone.options, alone.captured) == (None, more.captured)


def test_a_task_is_known_by_the_name_in_its_options_or_that_of_its_function() -> None:
    shipper = make()
    named = shipper.take_record(Options(name="one"), [1, "r1"])
    other = shipper.take_record(Options(timeout=1.0), [1, "r1"])
    labels = [shipper.label(7, record) for record in (None, named, other)]
    assert labels == [7, "one", 7]


def test_a_value_that_cannot_travel_is_refused_by_the_name_of_its_variable() -> None:
    shipper = make(variable, (threading.Lock, print), other)
    lines = dict(shipper.catalog.log.lines)
    with pytest.raises(NotShippable, match="the value of the context variable 'other' cannot trav"):
        shipper.take_captured([0b101, "r1", threading.Lock()])
    with pytest.raises(NotShippable, match=r"the value of '.*lock\(\)' cannot travel"):
        shipper.take_captured([0b010, threading.Lock()])
    bound = {"user": "ann", "lock": threading.Lock()}
    with pytest.raises(NotShippable, match=r"lock\(\)', under its key 'lock', cannot travel"):
        shipper.take_captured([0b010, bound])
    with pytest.raises(
        NotShippable, match=r"variable 'other', under its key 'lock', cannot travel"
    ):
        shipper.take_captured([0b100, bound])
    with pytest.raises(NotShippable, match="variable 'other' cannot travel"):  # a key cannot
        shipper.take_captured([0b100, {threading.Lock(): 1}])
    assert shipper.catalog.log.lines == lines


def test_too_much_is_refused() -> None:
    shipper = make()
    assert shipper.take_captured([1, "x" * (MOST_CAPTURED - 100)])
    with pytest.raises(NotShippable, match="takes 32,7.. bytes, and 32,768 at most .* list ids"):
        shipper.take_captured([1, "x" * MOST_CAPTURED])


def test_a_process_is_told_the_initializer_and_what_propagates() -> None:
    shipper = make(variable, (gc.collect, print))
    worker = WorkerCatalog()
    for call in ((max, (1, 2)), (None, ())):
        *told, propagation = worker.decode(shipper.take_call(*call))
        assert tuple(told) == call
        assert list(propagation.parts()["context variable"].values()) == [variable]
        assert list(propagation.parts()["function"].values()) == [gc.collect, print]
    assert worker.decode(HostShipper(HostCatalog()).take_call(max, (1,))) == (max, (1,), None)


def test_what_propagates_and_cannot_travel_is_named() -> None:
    lock = threading.Lock()

    def capture() -> object:
        return lock

    with pytest.raises(NotShippable, match="the function '.*capture' cannot travel"):
        make(variable, (capture, print)).take_call(None, ())
    local: ContextVar[int] = ContextVar("local")  # noqa: B039
    with pytest.raises(NotShippable, match="the context variable 'local' cannot travel"):
        make(variable, local).take_call(None, ())
    with pytest.raises(NotShippable, match="max, or an argument of it, cannot travel"):
        make().take_call(max, (lock,))


SCRIPT = """
from contextvars import ContextVar
user = ContextVar("user")
class User:
    def __init__(self, name): self.name = name
    def __eq__(self, other): return type(other) is type(self) and other.name == self.name
async def see(): return user.get()
"""


def test_a_class_of_a_script_is_kept_as_long_as_a_context_needs_it() -> None:
    with Script(SCRIPT) as world:
        catalog = world.host.catalog
        record = world.host.take_record(None, [1, world.User("ann")])
        plain = bytes(wire.captured_of(record) or b"")
        world.run("del User")
        world.forget()
        assert len(catalog.classes) == 0
        decoded = catalog.decode(plain)  # it is made again
        assert decoded[1].name == "ann"
        del record, decoded
        for _ in range(3):
            world.forget()
        with pytest.raises(LookupError, match="that no task had named any more"):
            catalog.decode(plain)


def test_what_a_task_schedules_is_taken_over_with_all_that_it_names() -> None:
    with Script(SCRIPT) as world:
        host, worker = world.host, world.worker
        user = world.User("ann")
        pickled = host.catalog.pickle(user)
        world.tell()
        inside = Shipper(worker)
        their_user = worker.decode(pickled)
        context = inside.take_captured([1, their_user])
        assert isinstance(context, Leased)
        taken = inside.take_options(Options(retry=Retry()))
        asked = InsideRequest(
            0, 5, "asyncio.tasks:sleep", 1, (), taken, with_names(context, context.leases), 1, None,
            False,
        )  # fmt: skip
        sent = InsideRequest(*wire.unpack(wire.pack(asked)))
        number, payload, record = adopt_call(host.catalog, sent)
        more = wire.read_record(record)
        assert isinstance(more.captured, Leased)
        assert host.catalog.decode(more.captured)[1] == user
        assert [host.name_of(number), payload] == ["asyncio.tasks:sleep", 1]
        assert more.options is not None
        assert more.options in host.catalog.options
        assert adopt_call(host.catalog, sent._replace(options=None, captured=None))[1:] == (1, None)


async def test_a_coroutine_is_taken_with_its_record() -> None:
    shipper = make()
    assert shipper.take(asyncio.sleep(0, 1), 7)[2] == 7
