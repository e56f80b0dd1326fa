"""The arguments of a manager: how they are read, and that refusals say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aioscheduler import Manager, SQLiteStore
from aioscheduler._outpost.engine import Engine
from aioscheduler._routing.settings import ManagerOptions, Settings, read_settings
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.propagation import Propagation

SILENT: Any = {
    "workers": 0,
    "initializer": None,
    "initargs": (),
    "loop_initializer": None,
    "on_worker_loss": "fail",
    "max_restarts": (5, 30.0),
    "monitor": False,
    "name": None,
    "max_running": None,
    "context": (),
    "max_tasks_per_worker": None,
    "max_rss_per_worker": None,
    "block_timeout": None,
    "forward_logs": False,
    "store": None,
    "engine": None,
}
"""The defaults of all arguments except `workers`."""


VARIABLE: ContextVar[str] = ContextVar("variable")
STORE = SQLiteStore(":memory:")


def read(**said: Any) -> Settings:
    return read_settings(Order.TIMED, True, 1, SILENT | said)


def test_each_option_is_read() -> None:
    assert ManagerOptions.__annotations__.keys() == SILENT.keys()
    assert read() == Settings(
        *(Order.TIMED, True, [1], True, None, None, False, (5, 30.0), False, None),
        *(None, None, None, None, None, False, None, None),
    )
    said = read(
        workers=1,
        initializer=print,
        initargs=["dsn"],
        loop_initializer=asyncio.new_event_loop,
        on_worker_loss="rerun",
        max_restarts=[0, 1],
        monitor=True,
        name="bots",
        max_running=3,
        context=[VARIABLE],
        max_tasks_per_worker=500,
        max_rss_per_worker=1 << 30,
        block_timeout=timedelta(seconds=5),
        forward_logs=True,
        store=STORE,
    )
    assert isinstance(said.propagation, Propagation)
    assert said._replace(propagation=None) == Settings(
        order=Order.TIMED,
        prefer_utc=True,
        layout=[1],
        local=False,
        boot=(print, ("dsn",)),
        loop_initializer=asyncio.new_event_loop,
        rerun=True,
        max_restarts=(0, 1),
        monitor=True,
        max_running=3,
        name="bots",
        propagation=None,
        max_tasks_per_worker=500,
        max_rss_per_worker=1 << 30,
        block_timeout=5.0,
        forward_logs=True,
        store=STORE,
        engine=None,
    )


def test_an_engine_says_how_many_workers_there_are() -> None:
    engine: Any = Engine(3, 2, ["run"], {})
    for workers in (None, 6):
        said = read_settings(
            Order.TIMED, True, None, SILENT | {"engine": engine, "workers": workers}
        )
        assert said.engine is engine
        assert (said.layout, said.local) == ([4] * 6, False)
    said = read_settings(Order.FIFO, True, None, SILENT | {"engine": engine, "workers": None})
    assert said.layout == [1] * 6
    for workers in (0, 5):
        with pytest.raises(ValueError, match="contradicts the engine, which has nodes=3 times"):
            read_settings(Order.TIMED, True, 8, SILENT | {"engine": engine, "workers": workers})
    with pytest.raises(TypeError, match="workers must be an int"):
        read_settings(Order.TIMED, True, 8, SILENT | {"engine": engine, "workers": "6"})
    with pytest.raises(ValueError, match="workers=6 is more than schedulers=3"):
        read_settings(Order.TIMED, True, 3, SILENT | {"engine": engine, "workers": None})


@pytest.mark.parametrize("engine", ["ray", 3, Engine, object()])
def test_what_is_no_engine_is_refused(engine: Any) -> None:
    with pytest.raises(TypeError, match=r"such as aioscheduler.ray.RayEngine\(nodes=2"):
        read_settings(Order.TIMED, True, 8, SILENT | {"engine": engine, "workers": None})


def test_the_manager_says_what_was_left_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def note(order: Order, prefer_utc: bool, schedulers: int | None, said: Any) -> Settings:
        seen.append(said)
        return read_settings(order, prefer_utc, schedulers, said)

    monkeypatch.setattr("aioscheduler.manager.read_settings", note)
    Manager()
    assert seen == [SILENT | {"workers": None}]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"initargs": 5}, r"a tuple, such as \(5,\), not 5"),
        ({"initializer": print, "initargs": "dsn"}, r"such as \('dsn',\)"),
        ({"initializer": 5}, "initializer must be a function, not 5; give the function itself"),
        ({"loop_initializer": 5}, r"makes a loop, not 5; leave out the \(\)"),
        ({"max_restarts": 5}, r"max_restarts must be \(how many, in seconds\), not 5"),
        ({"max_restarts": (1, 2, 3)}, "max_restarts must be"),
        ({"max_restarts": (1.5, 30.0)}, r"max_restarts\[0\] must be an int, not float"),
        ({"max_running": 2.0}, "max_running must be an int, not float"),
        ({"max_running": True}, "max_running must be an int, not bool"),
        *(({"monitor": wrong}, f"must be True or False, not {wrong!r}") for wrong in ("no", 1)),
        ({"forward_logs": "no"}, "forward_logs must be True or False, not 'no'"),
        ({"name": 5}, "name is a str, not int"),
        ({"store": 5}, "store must be a path or a SQLiteStore, not 5"),
        ({"store": True}, "store must be a path or a SQLiteStore, not True"),
        ({"store": b"tasks.db"}, "store must be a path or a SQLiteStore, not b'tasks.db'"),
        ({"context": 5}, "context is a list of context variables, .*: a list, not 5"),
        ({"context": "var"}, "a list, not 'var'"),
        ({"context": VARIABLE}, r"write \[variable\], not <ContextVar name='variable'"),
        *(({"context": wrong}, "a list, not ") for wrong in ({VARIABLE}, {VARIABLE: 1}, None)),
        *(
            ({"workers": 1, count: 2.0}, f"{count} must be an int, not float")
            for count in ("max_tasks_per_worker", "max_rss_per_worker")
        ),
        ({"workers": 1, "block_timeout": "5"}, "block_timeout is seconds or a timedelta, not str"),
    ],
)
def test_arguments_that_no_manager_takes(said: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read(**said)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"initargs": ["dsn"]}, "initargs are for an initializer, and there is none"),
        ({"workers": 2}, "workers=2 is more than schedulers=1"),
        ({"on_worker_loss": "again"}, 'must be "fail" or "rerun", not \'again\''),
        ({"max_restarts": (-1, 30.0)}, r"max_restarts\[0\] must be at least 0"),
        ({"max_restarts": (5, 0)}, r"max_restarts\[1\] must be seconds, more than 0, not 0"),
        ({"max_restarts": (5, math.inf)}, r"max_restarts\[1\] must be seconds"),
        ({"loop_initializer": asyncio.new_event_loop}, "workers=0 has none"),
        *(({"max_running": no}, "max_running must be at least 1") for no in (0, -1)),
        ({"name": ""}, "name must not be empty; leave it out and the manager's id is its name"),
        ({"name": "a\nb"}, r"name must be printable, .* not 'a\\nb'"),
        ({"name": "\ud800"}, "name cannot be written down"),
        *(
            ({"workers": 1, count: 0}, f"{count} must be at least 1, not 0")
            for count in ("max_tasks_per_worker", "max_rss_per_worker")
        ),
        *(
            ({option: 1}, f"{option} is for worker processes; workers=0 has none")
            for option in ("max_tasks_per_worker", "max_rss_per_worker", "block_timeout")
        ),
        *(
            (
                {"workers": 1, "block_timeout": wrong},
                "block_timeout must be finite, and more than 0 seconds",
            )
            for wrong in (0, -1, math.nan, math.inf)
        ),
    ],
)
def test_values_that_no_manager_takes(said: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(**said)


@pytest.mark.parametrize("order", [Order.FIFO, Order.LIFO])
def test_a_queue_takes_no_limit_of_its_own(order: Order) -> None:
    with pytest.raises(ValueError, match="a queue runs one task at a time: leave out max_running"):
        read_settings(order, True, 1, SILENT | {"max_running": 1})
    with pytest.raises(TypeError, match="must be an int"):
        read_settings(order, True, 1, SILENT | {"max_running": "1"})


@pytest.mark.parametrize("path", ["tasks.db", Path("tasks.db")])
def test_a_path_is_that_of_a_store(path: Any) -> None:
    store = read(store=path).store
    assert isinstance(store, SQLiteStore)
    assert store.path == os.path.abspath("tasks.db")
    assert not os.path.exists(store.path)  # start() opens it


def test_what_waits_is_kept_in_order_but_for_that_of_a_stack() -> None:
    assert read_settings(Order.FIFO, True, 1, SILENT | {"store": STORE}).store is STORE
    with pytest.raises(ValueError, match="a LifoQueuedScheduler cannot have a store: after"):
        read_settings(Order.LIFO, True, 1, SILENT | {"store": STORE})


@contextlib.contextmanager
def lifespan() -> Iterator[None]:
    yield


def generator() -> Iterator[int]:
    yield 1


class Steps:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@contextlib.asynccontextmanager
async def shared() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("initializer", [shared, functools.partial(shared)])
def test_a_lifespan_is_an_initializer(initializer: Any) -> None:
    assert read(initializer=initializer).boot == (initializer, ())


@pytest.mark.parametrize("called", [shared, lifespan])
def test_what_the_call_of_a_lifespan_gives_is_no_initializer(called: Any) -> None:
    with pytest.raises(TypeError, match="give the function itself, without a call"):
        read(initializer=called())


@pytest.mark.parametrize("initializer", [lifespan, functools.partial(lifespan), generator, Steps()])
def test_an_initializer_that_would_not_run_is_refused(initializer: Any) -> None:
    with pytest.raises(TypeError, match=r"contains a yield.* @contextlib\.asynccontextmanager"):
        read(initializer=initializer)
