"""The host ships definitions, and rebound ones again: completely, or not at all."""

from __future__ import annotations

import asyncio
import functools
import importlib
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.shipping import Call, open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.definitionlog import Reader
from aioscheduler.errors import NotShippable
from aioscheduler.options import Options
from aioscheduler.retry import Retry


def test_a_helper_of_a_helper_that_is_rebound_is_seen(world: Script) -> None:
    world.run(
        "def helper(): return other()\ndef other(): return SCALE\nasync def go(): return helper()"
    )
    assert world.trip(world.go()) == 10
    world.run("SCALE = 11")
    assert world.trip(world.go()) == 11
    world.run("def other(): return [SCALE]")
    assert world.trip(world.go()) == [11]
    world.run("class Shop: rate = 5\ndef other(): return Shop().rate")
    assert world.trip(world.go()) == 5
    world.run("class Shop: rate = 6")
    assert world.trip(world.go()) == 6
    world.begin()  # the next process gets only the newest
    assert world.trip(world.go()) == 6
    world.forget()
    log = world.host.catalog.log
    lines = len(log.lines.keys() - log.retired)
    for n in range(20):
        world.run(f"SCALE = {n + 1000}")
        assert world.trip(world.go()) == 6
    assert len(log.lines.keys() - log.retired) == lines


def test_a_module_that_is_bound_anew_is_seen(world: Script) -> None:
    world.run("import json\nclass Fake:\n    codec = 'fake'\n")
    world.run("async def look(): return getattr(json, 'codec', getattr(json, '__name__', json))")
    assert world.trip(world.look()) == "json"
    world.run("import pickle as json")
    assert world.trip(world.look()) == "pickle"
    world.run("json = Fake()")
    assert world.trip(world.look()) == "fake"
    world.run("json = 5")
    assert world.trip(world.look()) == 5
    world.run("import json")
    assert world.trip(world.look()) == "json"


def test_what_cannot_travel_any_more_is_refused(world: Script) -> None:
    world.run("async def look(): return SCALE")
    assert world.trip(world.look()) == 10
    world.run("import threading; SCALE = threading.Lock()")
    for _ in range(2):
        with pytest.raises(NotShippable, match="the global 'SCALE' of script_of_mine, which look"):
            world.trip(world.look())
    world.run("SCALE = 12")
    assert world.trip(world.look()) == 12
    world.run("del SCALE")
    assert world.trip(world.look()) == 12


def test_a_closure_whose_global_cannot_travel_is_refused_until_it_can(world: Script) -> None:
    world.run(
        "import threading\nLOCK = threading.Lock()\n"
        "def make(n):\n    async def inner(): return n, LOCK\n    return inner\n"
    )
    for _ in range(3):
        with pytest.raises(NotShippable, match="the global 'LOCK'"):
            world.trip(world.make(1)())
    world.run("LOCK = 5")
    assert world.trip(world.make(1)()) == (1, 5)
    world.run("LOCK = 6")
    assert world.trip(world.make(2)()) == (2, 6)


def test_folders_that_come_later_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipper = HostShipper(HostCatalog())
    (tmp_path / "comes_later.py").write_text("async def work(n):\n    return n + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import comes_later  # type: ignore[import-not-found]

    number, payload, _ = shipper.take(comes_later.work(1))
    monkeypatch.delitem(sys.modules, "comes_later")
    sys.path.remove(str(tmp_path))
    worker = WorkerCatalog()
    for line in shipper.catalog.log.lines.values():
        worker.read(line)
    called, args, *_ = open_call(worker, number, payload)
    assert asyncio.run(called(*args)) == 2


def test_folders_of_any_name_are_sent(world: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["/before"]
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/no-text"), "/not-utf-8-\udcff", "/later"])
    assert world.trip(world.echo([1])) == [1]  # as in a worker with the same path
    world.begin()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", there)
        world.tell()
    assert there == ["/before", "/not-utf-8-\udcff", "/later"]


def test_a_path_that_cannot_be_sent_does_not_affect_the_next_call(
    world: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoMemory(list[Any]):
        def __iter__(self) -> Any:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", NoMemory([*sys.path, "/later"]))
        with pytest.raises(MemoryError):
            world.host.take(coro := world.echo([1]))
        coro.close()
    assert world.trip(world.echo([1])) == [1]


def test_a_module_that_is_loaded_again_is_loaded_again_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "is_reloaded.py"
    path.write_text("async def work():\n    return 1\n")
    ours = importlib.import_module("is_reloaded")
    shipper, worker = HostShipper(HostCatalog()), WorkerCatalog()
    reader = Reader(shipper.catalog.log)

    def trip() -> Any:
        number, payload, _ = shipper.take(ours.work())
        with pytest.MonkeyPatch.context() as patch:
            theirs = worker.__dict__.setdefault("theirs", {})
            patch.delitem(sys.modules, "is_reloaded")
            sys.modules.update(theirs)
            for line in reader.read():
                worker.read(line)
            called, args, *_ = open_call(worker, number, payload)
            theirs["is_reloaded"] = sys.modules["is_reloaded"]
        return asyncio.run(called(*args))

    assert trip() == 1
    path.write_text("async def work():\n    return 22\n")
    importlib.reload(ours)
    assert trip() == 22
    assert trip() == 22


def test_a_value_of_a_change_that_was_undone_is_forgotten(world: Script) -> None:
    world.run("def big(n): return LOCK")
    catalog = world.host.catalog
    for _ in range(3):
        world.run("import threading; LOCK = threading.Lock()")
        with pytest.raises(NotShippable):
            world.host.take_function(functools.partial(world.big, b"x" * 100_000))
    world.run("LOCK = 1")
    world.host.take_function(functools.partial(world.big, b"x" * 100_000))
    catalog.forget_unused()
    values = catalog.values
    assert len(values._numbers) == len(values._digests) == len(values._idle) == 1


def test_nothing_begins_while_something_is_pickled(world: Script) -> None:
    refused: list[BaseException] = []

    class Schedules:
        def __reduce__(self) -> Any:
            try:
                world.host.take_function(functools.partial(len))
            except NotShippable as error:
                refused.append(error)
            return int, ()

    assert world.trip(world.echo(Schedules())) == 0
    assert "loop.call_soon" in str(refused[0])


FAILING = """
class Child: pass
def helper(n): return n * SCALE
async def work(n): return helper(n)
async def echo_all(*args): return args
async def bad_global(): return opened
"""


def test_a_failed_encoding_leaves_no_trace(world: Script) -> None:
    catalog = world.host.catalog
    world.run(FAILING)
    with socket.socket() as opened:
        world.module.__dict__["opened"] = opened

        async def capture(child: Any) -> Any:
            return opened, world.Child, child

        def attempts() -> list[tuple[Any, str]]:
            return [
                (world.echo_all(world.Child(), opened), r"argument 'args' of echo_all\(\)"),
                (world.work(opened), r"argument 'n' of work\(\)"),
                (capture(world.Child()), r"closure variable 'opened' of .*capture\(\)"),
                (world.bad_global(), "global 'opened' of script_of_mine, which bad_global"),
            ]

        before: Any = None
        for _ in range(2):  # the functions can travel, and are known after the first time
            for coro, message in attempts():
                with pytest.raises(NotShippable, match=message):
                    world.host.take(coro)
                assert coro.cr_frame is not None  # untouched
                coro.close()
            after = len(catalog.log.lines), *map(dict, _tables(catalog))
            assert before is None or before == after
            before = after
    assert world.Child not in catalog.class_numbers
    assert world.trip(world.work(2)) == 20


def _tables(catalog: HostCatalog) -> tuple[Mapping[Any, Any], ...]:
    return (
        catalog.classes,
        {name: space.shipped.copy() for name, space in catalog._spaces._of_modules.items()},
        catalog._adopted,
    )


class Schedules:
    """Schedules something else while it is pickled, and is then refused."""

    def __init__(self, do: Any, refuse: bool) -> None:
        self.do, self.refuse = do, refuse

    def __reduce__(self) -> tuple[Any, ...]:
        self.do()
        if self.refuse:
            raise ValueError("no")
        return int, ()


@pytest.mark.parametrize("refuse", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_what_is_scheduled_while_something_is_pickled_is_right_or_refused(
    refuse: bool, known: bool
) -> None:
    host, worker = HostCatalog(), WorkerCatalog()
    shipper = HostShipper(host)
    space: dict[str, Any] = {"__name__": "__main__", "__file__": "script.py", "__spec__": None}
    exec("async def outer(x): return 'outer'\nasync def inner(x): return 'inner', x", space)
    exec("async def later(x): return 'later', x", space)
    calls: list[Call] = []

    def schedule_inner() -> None:
        coro = space["inner"](3)
        try:
            calls.append(shipper.take(coro))
        except NotShippable:
            coro.close()

    if known:
        schedule_inner()
    outer = space["outer"](Schedules(schedule_inner, refuse))
    try:
        shipper.take(outer)
    except NotShippable:
        outer.close()
    calls.append(shipper.take(space["later"](4)))
    schedule_inner()
    for line in host.log.lines.values():
        worker.read(line)
    results = []
    for number, payload, _ in calls:
        called, args, kwargs = open_call(worker, number, payload)
        results.append(asyncio.run(called(*args, **kwargs)))
    assert results[-2:] == [("later", 4), ("inner", 3)]
    assert set(results) == {("later", 4), ("inner", 3)}


def test_a_global_that_cannot_travel_is_refused_where_it_is_used() -> None:
    shipper = HostShipper(HostCatalog())
    space: dict[str, Any] = {"__name__": "__main__", "__file__": "script.py", "__spec__": None}
    space["db"] = None
    exec(
        "def use(): return db\nasync def f(): return use()\nasync def g(): return 1\n"
        "def plain(n): return n",
        space,
    )
    for name in "fg":
        shipper.take(space[name]())
    space["db"] = threading.Lock()
    shipper.take(space["g"]())
    shipper.take_function(abs)
    shipper.take_function(space["plain"])
    coro = space["f"]()
    with pytest.raises(NotShippable, match="the global 'db'"):
        shipper.take(coro)
    coro.close()
    space["db"] = 5
    shipper.take(space["f"]())


def test_a_global_that_was_deleted_is_followed_again_once_it_is_bound() -> None:
    host, worker = HostCatalog(), WorkerCatalog()
    shipper = HostShipper(host)
    space: dict[str, Any] = {"__name__": "__main__", "__file__": "script.py", "__spec__": None}
    exec("K = 1\nasync def f(): return K", space)
    shipper.take(space["f"]())
    del space["K"]
    shipper.take(space["f"]())
    space["K"] = 2
    number, payload, _ = shipper.take(space["f"]())
    for line in host.log.lines.values():
        worker.read(line)
    called, args, kwargs = open_call(worker, number, payload)
    assert asyncio.run(called(*args, **kwargs)) == 2


ASKING = """
WORDS = ["busy"]
class Busy(Exception): pass
def asks(error): return str(error) in WORDS
def compares(word, error): return str(error) == word
def make(seconds): return lambda error: seconds if isinstance(error, Busy) else False
class Asks:
    def __init__(self, word): self.word = word
    def __call__(self, error): return str(error) == self.word
"""


def read_there(world: Script, taken: Any) -> Any:
    """Return what a worker reads of options that the host has taken."""
    ours = world.module
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, ours.__name__)
        for name, module in world.modules.items():
            patch.setitem(sys.modules, name, module)
        world.tell()
        if ours.__name__ in sys.modules:
            world.modules[ours.__name__] = sys.modules[ours.__name__]
        retry = world.worker.find_options(int(taken)).retry
    assert retry is not None
    return retry


def test_the_predicate_of_a_retry_travels_by_value(world: Script) -> None:
    world.run(ASKING)
    taken = world.host.take_options(Options("a", retry=Retry(world.asks, attempts=7)))
    there = read_there(world, taken)
    assert (there.attempts, there.wait_initial, there.on.__name__) == (7, 1.0, "asks")
    assert there.on is not world.asks
    assert there.on(ValueError("busy")) is True
    world.run("WORDS = ['idle']")  # a global that it uses is rebound
    again = Options("a", retry=Retry(world.asks, attempts=7))
    assert world.host.take_options(again) == taken
    assert read_there(world, taken).on(ValueError("busy")) is False
    closure = read_there(world, world.host.take_options(Options(retry=Retry(world.make(5)))))
    busy = next(cls for cls in world.worker.classes.values() if cls.__name__ == "Busy")
    assert (closure.on(busy()), closure.on(ValueError())) == (5, False)
    called = read_there(world, world.host.take_options(Options(retry=Retry(world.Asks("x")))))
    assert called.on(ValueError("x"))


def test_a_class_that_a_retry_names_is_the_one_that_a_task_raises(world: Script) -> None:
    world.run(ASKING)
    taken = world.host.take_options(Options(retry=Retry((OSError, world.Busy))))
    there = read_there(world, taken)
    world.run("async def give_class(): return Busy")
    known, busy = there.on
    assert known is OSError
    assert busy is next(cls for cls in world.worker.classes.values() if cls.__name__ == "Busy")
    assert world.trip(world.give_class()) is world.Busy


def test_what_a_retry_names_is_there_as_long_as_a_task_has_it(world: Script) -> None:
    world.run(ASKING)
    held = world.host.take_options(Options(retry=Retry(world.make(5))))
    world.run("del make, Busy")
    world.forget()
    there = read_there(world, held)
    busy = next(cls for cls in world.worker.classes.values() if cls.__name__ == "Busy")
    assert there.on(busy()) == 5
    number = int(held)
    assert number in world.host.catalog.log.lines
    del held, there, busy
    for _ in range(3):
        world.forget()
    assert number not in world.host.catalog.log.lines
    assert number not in world.host.catalog.options
    assert not (world.worker._options or world.worker._unread_options)


def test_a_retry_that_cannot_travel_is_refused_by_name_and_leaves_no_trace(world: Script) -> None:
    world.run(ASKING)
    held = world.host.take_options(Options(retry=Retry(world.make(5))))
    lock = threading.Lock()
    world.module.__dict__["LOCK"] = lock
    world.run("def locks(error): return LOCK")
    world.run("class Holds:\n    def __init__(self, x): self.x = x\n    __call__ = print")

    def holds(error: BaseException) -> bool:
        return bool(lock)

    log, options = world.host.catalog.log, world.host.catalog.options
    before = len(log.lines), dict(options._numbers)
    for on, message in (
        (holds, "^the closure variable 'lock' of the option retry cannot travel"),
        (world.locks, "^the global 'LOCK' of script_of_mine, which locks.. uses, cannot"),
        (world.Holds(lock), "^the option retry cannot travel to a worker process"),
        (
            functools.partial(world.compares, lock),
            "^the argument 1 of the option retry cannot travel",
        ),
    ):
        with pytest.raises(NotShippable, match=message):
            world.host.take_options(Options(retry=Retry(on)))
        assert (len(log.lines), options._numbers) == before
    assert held in options


def test_options_of_a_worker_are_one_line_with_those_of_the_host(world: Script) -> None:
    """The host does not unpickle for that: a class may raise when it is unpickled."""
    world.run(ASKING)
    catalog = world.host.catalog
    retries = [Retry(OSError), Retry(world.Busy), Retry(world.asks), Retry(world.make(5))]
    taken = [world.host.take_options(Options("a", retry=retry)) for retry in retries]
    lines = len(catalog.log.lines)
    for number in taken:
        there = Options("a", retry=read_there(world, number))
        fields = wire.unpack(wire.pack(world.worker.options_number(there)))
        assert catalog.adopt_options(fields) == number
    assert len(catalog.log.lines) == lines
    unreadable = [None, None, None, b"\x80 no pickle"]
    assert catalog.adopt_options(unreadable) == catalog.adopt_options(unreadable)
    plain = wire.unpack(wire.pack(world.worker.options_number(Options("b", 2.0))))
    assert catalog.adopt_options(plain) == catalog.options_number(Options("b", 2.0))


def test_what_a_worker_names_in_options_is_kept_by_their_line(world: Script) -> None:
    world.run(ASKING)
    held = world.host.take_options(Options(retry=Retry(world.make(5))))
    there = Options("inside", retry=read_there(world, held))
    fields = wire.unpack(wire.pack(world.worker.options_number(there)))
    adopted = world.host.catalog.adopt_options(fields)
    assert adopted != held
    world.run("del make, Busy")
    del held, there
    for _ in range(3):
        world.forget()
    world.begin()  # the next process
    again = read_there(world, adopted)
    busy = next(cls for cls in world.worker.classes.values() if cls.__name__ == "Busy")
    assert again.on(busy()) == 5
