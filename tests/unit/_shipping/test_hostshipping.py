"""Calls taken for all workers of a manager: records, contexts, durable calls, initializers."""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import json
import multiprocessing
import pickle
import signal
import threading
import types
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Script

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper, adopt_call
from aioscheduler._shipping.payloads import with_names
from aioscheduler._shipping.propagation import Propagation
from aioscheduler._shipping.restore import active
from aioscheduler._shipping.shipping import MOST_CAPTURED, Shipper, open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import Leased, Reader
from aioscheduler._transport.entry import InsideRequest
from aioscheduler.errors import NotDurable, NotShippable
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
    with pytest.raises(NotShippable, match="take 32,7.. bytes, and 32,768 at most .* pass ids"):
        shipper.take_captured([1, "x" * MOST_CAPTURED])


def test_a_process_receives_the_initializer_and_the_context_items() -> None:
    shipper = make(variable, (gc.collect, print))
    worker = WorkerCatalog()
    for call in ((max, (1, 2)), (None, ())):
        *told, propagation = worker.decode(shipper.take_call(*call))
        assert tuple(told) == call
        assert list(propagation.parts()["context variable"].values()) == [variable]
        assert list(propagation.parts()["function"].values()) == [gc.collect, print]
    assert worker.decode(HostShipper(HostCatalog()).take_call(max, (1,))) == (max, (1,), None)


def test_a_context_item_that_cannot_travel_is_named() -> None:
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
        decoded = catalog.decode(plain)  # it is recreated
        assert decoded[1].name == "ann"
        del record, decoded
        for _ in range(3):
            world.forget()
        with pytest.raises(LookupError, match="that no other task names"):
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


# ---- durable calls


async def sort(a: Any, /, b: Any, *rest: Any, c: Any = 3, **more: Any) -> Any:
    return a, b, rest, c, more


async def pair(a: Any, b: Any = None) -> Any:
    return a, b


async def keep(a: Any) -> Any:
    return lambda: a  # in a cell


def run_in_the_next(function: Any, payload: bytes) -> Any:
    """Run a durable payload in a worker of another host."""
    number = (catalog := HostCatalog()).name_number("m:f", function)
    worker: Any = WorkerCatalog()
    for line in Reader(catalog.log).read():
        worker.read(line)
    worker.function = lambda _: function  # found by its name
    called, args, kwargs = open_call(worker, number, wire.unpack(wire.pack(payload)))
    try:
        called(*args, **kwargs).send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError


@given(st.lists(VALUES, min_size=2, max_size=2))
def test_durable_arguments_arrive_as_they_are(values: list[Any]) -> None:
    shipper = make()
    coros: list[Any] = [pair(*values), pair(b=values[1], a=values[0])]
    for coro in coros:
        payload = shipper.take_durable(coro, "pair")
        assert type(payload) is bytes
        assert coro.cr_frame is None
        arrived = run_in_the_next(pair, payload)
        assert arrived == tuple(values)
        assert list(map(type, arrived)) == list(map(type, values))
    mapped = shipper.take_durable_arguments(tuple(values), "pair")
    assert run_in_the_next(pair, mapped) == tuple(values)


@given(VALUES, VALUES)
def test_durable_arguments_of_every_kind_arrive(first: Any, second: Any) -> None:
    shipper = make()
    coro = sort(first, second, first, second, c=first, second=second)
    arrived = run_in_the_next(sort, shipper.take_durable(coro, "sort"))
    assert arrived == (first, second, (first, second), first, {"second": second})
    kept = run_in_the_next(keep, shipper.take_durable(keep(first), "keep"))
    assert kept() == first


def test_plain_durable_values_take_little() -> None:
    shipper = make()
    assert shipper.take_durable(pair(1), "pair") == wire.pack([1, None])
    assert shipper.take_durable(keep(7), "keep").startswith(b"\x80")
    assert shipper.take_durable_arguments((7,), "keep") == wire.pack([7])
    for values in ([7, -1], [0.5]):
        calls = [(value,) for value in values]
        taken = [shipper.take_durable_arguments(each, "keep") for each in calls]
        assert shipper.take_durable_plain(calls) == taken
    assert shipper.take_durable_plain([(7,), (0.5,)]) is None


def test_a_durable_coroutine_that_has_started_is_refused() -> None:
    async def wait() -> None:
        await asyncio.sleep(0)

    shipper = make()
    for function in (wait, pair, sort):
        coro: Any = function(*[1, 2][: function.__code__.co_argcount])
        coro.close()
        with pytest.raises(NotShippable, match="has been awaited or closed already"):
            shipper.take_durable(coro, "one")
    coro = wait()
    coro.send(None)
    with pytest.raises(NotShippable, match="has started already"):
        shipper.take_durable(coro, "wait")
    coro.close()


KINDS = """
import enum, functools, types, typing
from contextvars import ContextVar
variable = ContextVar("variable")
class User: pass
class Level(enum.Enum): LOW = 1
class Broken(Exception): pass
def helper(): pass
cached = functools.cache(helper)
Id = typing.NewType("Id", int)
module = types.ModuleType("made")
def closure(value): return lambda: value
"""


@pytest.mark.parametrize(
    ("code", "culprit"),
    [
        ("User()", "class script_of_mine.User"),
        ("User", "class script_of_mine.User"),
        ("Level.LOW", "class script_of_mine.Level"),
        ("Broken()", "class script_of_mine.Broken"),
        ("helper", "function script_of_mine.helper"),
        ("cached", "_lru_cache_wrapper helper"),
        ("closure(1)", "function script_of_mine.closure.<locals>.<lambda>"),
        ("Id", "NewType Id"),
        ("module", "module made"),
        ("variable", "context variable variable"),
    ],
)
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_what_the_next_host_cannot_import_is_refused(code: str, culprit: str, known: bool) -> None:
    """The catalog stays as it was, whether other tasks have shipped the object or not."""
    with Script(KINDS) as world:
        host, value = world.host, eval(code, world.module.__dict__)
        if known:
            host.take(pair(value))
        lines, numbers = dict(host.catalog.log.lines), len(host.catalog.class_numbers)
        match = (
            rf"argument 'b'.* of the durable 'pair' cannot be kept for the next host: the "
            rf"{culprit} cannot be imported by the next host: define it at the top of a module"
        )
        coro = pair(1, {"key": [value]})
        with pytest.raises(NotDurable, match=match):
            host.take_durable(coro, "pair")
        host.take(coro)  # the coroutine is untouched
        if not known:
            lines = dict(host.catalog.log.lines)
        assert (host.catalog.log.lines == lines, numbers) == (True, numbers)
        with pytest.raises(NotDurable, match=rf"argument 2 of the durable 'pair' .* the {culprit}"):
            host.take_durable_arguments((1, value), "pair")
        assert host.catalog.log.lines == lines


def test_what_is_of_one_process_is_not_durable_either(tmp_path: Path) -> None:
    shipper, inherited = make(), multiprocessing.get_context("spawn").Lock()
    wrong: list[Any] = [
        threading.Lock(),
        asyncio.Lock(),
        inherited,
        pair.__code__,
        (tmp_path / "file").open("w"),
    ]
    for value in wrong:
        with pytest.raises(NotDurable, match="argument 'a' of the durable 'pair' cannot be kept"):
            shipper.take_durable(coro := pair(value), "pair")
        coro.close()
    wrong[-1].close()


def test_what_every_host_has_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of this package that are stored in files: they must stay valid for ever."""
    shipper = make()
    owner = shipper.catalog.owner = type("Manager", (), {})()
    values = [
        *(Fraction(1, 3), datetime.now(UTC), Path("x"), signal.SIGINT, uuid.uuid4(), len, Fraction),
        *(type(None), type(...), asyncio.sleep, pytest.skip.Exception, json, types.CodeType),
        *(ValueError("x"), owner),
    ]
    payload = shipper.take_durable(pair(values), "pair")
    arrived = run_in_the_next(pair, payload)[0]
    assert arrived[:13] == values[:13]
    assert repr(arrived[13:]) == "[ValueError('x'), None]"  # that worker's own
    named = set()

    class Loader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add((module, name))
            return super().find_class(module, name)

    monkeypatch.setattr(active, "catalog", WorkerCatalog(), raising=False)
    Loader(io.BytesIO(payload)).load()
    ours = {(module, name) for module, name in named if module.startswith("aioscheduler")}
    assert ours == {
        ("aioscheduler._shipping.restore", "owner"),
        ("aioscheduler._shipping.names", "resolve"),
        ("aioscheduler._shipping.failures", "create_error"),
        ("aioscheduler._shipping.failures", "set_state"),
    }


def test_what_was_captured_is_durable() -> None:
    shipper = make()
    assert shipper.take_durable_captured(None) is None
    assert shipper.take_durable_captured([0]) is None
    for captured in ([1, "r1"], [3, Fraction(1, 3), {1}]):
        payload = shipper.take_durable_captured(captured)
        assert payload == shipper.take_captured(captured)
        assert type(payload) is bytes
        assert WorkerCatalog().decode(payload) == captured
    with pytest.raises(NotShippable, match="take 32,7.. bytes"):
        shipper.take_durable_captured([1, "x" * MOST_CAPTURED])
    with Script(SCRIPT) as world:
        shipper = world.host
        shipper.catalog.propagation = Propagation((variable, other))
        with pytest.raises(
            NotDurable, match=r"value of the context variable 'other' cannot be kept .* script_of_m"
        ):
            shipper.take_durable_captured([3, 1, world.User("ann")])
        assert shipper.catalog.log.lines == {}


def test_a_new_folder_of_the_path_is_sent_even_if_durable_arguments_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shipper = make()
    monkeypatch.syspath_prepend("/somewhere/else")
    with pytest.raises(NotDurable):
        shipper.take_durable_arguments((lambda: 1,), "one")
    assert [wire.unpack(line)[2:] for line in shipper.catalog.log.lines.values()] == [
        [[b"/somewhere/else"]]
    ]


# ---- functions that may be shipped


def test_each_function_is_asked_about_once_before_it_is_shipped() -> None:
    shipper, asked = make(), list[object]()
    closure = keep_closure()
    shipper.take(pair(1))
    shipper.inspect = asked.append
    for _ in range(3):
        shipper.take(pair(1))
        shipper.take(sort(1, 2))
    shipper.take(closure())
    assert asked == [sort, closure]
    shipper.take_function(sort)
    shipper.take_function(partial := functools.partial(sort, 1))
    assert asked[2:] == [sort, partial]


def keep_closure() -> Any:
    value = 1

    async def closure() -> int:
        return value

    return closure


def test_what_may_not_be_shipped_leaves_everything_as_it_was() -> None:
    def refuse(function: object) -> None:
        raise NotDurable("no")

    shipper = make()
    shipper.inspect = refuse
    closure = keep_closure()
    coros: list[Any] = [pair(1), closure(), sort(1, 2)]
    for coro in coros:
        for _ in range(2):
            with pytest.raises(NotDurable):
                shipper.take(coro)
        assert coro.cr_frame is not None
        coro.close()
    with pytest.raises(NotDurable):
        shipper.take_function(pair)
    assert shipper.catalog.log.lines == {}


async def test_a_coroutine_is_taken_with_its_record() -> None:
    shipper = make()
    assert shipper.take(asyncio.sleep(0, 1), 7)[2] == 7
