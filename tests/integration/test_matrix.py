"""Functions of every kind, scheduled in every way; and failures of every kind, at every stage."""

from __future__ import annotations

import asyncio
import functools
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import kinds
import pytest
import raising
from raising import KINDS, ODD, Raises, RaisesIt

from aioscheduler import Manager, NotShippable, RemoteError, Retry, State

DELAY = 3600  # seconds: tasks scheduled inside start when the test, with their handles, says so


@pytest.fixture(params=["by name", "by value"])
def module(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return the module `kinds`, or a script of the same text."""
    if request.param == "by name":
        yield kinds
        return
    script = ModuleType("kinds_of_a_script")
    sys.modules[script.__name__] = script
    exec(compile(Path(kinds.__file__).read_text(), kinds.__file__, "exec"), script.__dict__)
    yield script
    del sys.modules[script.__name__]


@pytest.fixture(params=[0, 2], ids=["here", "workers"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[Manager]:
    async with Manager(4, workers=request.param) as manager:
        yield manager


async def ends(awaitables: dict[str, Any]) -> dict[str, Any]:
    """Return the result or error of each, by name."""
    async with asyncio.timeout(20):
        found = await asyncio.gather(*awaitables.values(), return_exceptions=True)
    return dict(zip(awaitables, found, strict=True))


def expected(table: dict[str, Any]) -> dict[str, Any]:
    return {name: kind[3] for name, kind in table.items()}


def schedule_all(manager: Manager, module: Any) -> dict[str, Any]:
    return {
        name: manager.schedule(function(*args, **kwargs))
        for name, (function, args, kwargs, _) in module.ASYNC.items()
    }


async def test_scheduled(manager: Manager, module: Any) -> None:
    assert await ends(schedule_all(manager, module)) == expected(module.ASYNC)


async def test_mapped(manager: Manager, module: Any) -> None:
    table = module.ASYNC | module.PLAIN
    batches = {
        name: manager.starmap(functools.partial(f, **kwargs) if kwargs else f, [args, args])
        for name, (f, args, kwargs, _) in table.items()
    }
    assert await ends(batches) == {name: [end, end] for name, end in expected(table).items()}


async def test_scheduled_from_inside_a_task(manager: Manager, module: Any) -> None:
    refs = await manager.schedule(module.inside(DELAY))
    assert not [ref for ref in refs.values() if isinstance(ref, str)]
    tasks = {name: manager.task(ref) for name, ref in refs.items()}
    for task in tasks.values():
        assert task.reschedule(timedelta(0))
    assert await ends(tasks) == expected(module.ASYNC)


async def test_in_the_next_process(module: Any) -> None:
    async with Manager(1, workers=1) as manager:
        assert await ends(schedule_all(manager, module)) == expected(module.ASYNC)
        pid = manager.stats().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await ends(schedule_all(manager, module)) == expected(module.ASYNC)


# ---- failures


def write_bad_module(folder: Path, kind: type[BaseException]) -> str:
    """Write a module that only the host can import; return its name."""
    name = f"raises_{kind.__name__}_where_it_is_imported"
    text = (
        "import asyncio, raising\n"
        "async def work(): pass\n"
        f"raising.throw_in_worker(raising.KINDS[{KINDS.index(kind)}])\n"
    )
    (folder / f"{name}.py").write_text(text)
    return name


def global_of_a_script(kind: type[BaseException]) -> Any:
    """Return a coroutine of a script with a global that workers cannot unpickle."""
    script = sys.modules[f"script_of_{kind.__name__}"]
    exec("async def work(): return bad", script.__dict__)
    script.__dict__["bad"] = Raises(raising.throw_in_worker, kind)
    return script.__dict__["work"]()


STAGES: dict[str, Callable[[type[BaseException]], Any]] = {
    "argument decode": lambda kind: raising.take(Raises(raising.throw_in_worker, kind)),
    "import": lambda kind: sys.modules[f"raises_{kind.__name__}_where_it_is_imported"].work(),
    "definition": global_of_a_script,
    "run": raising.run,
    "result encode": lambda kind: raising.give(None, kind),
    "failure encode": lambda kind: raising.fail(None, kind),
    "failure decode in the worker": lambda kind: raising.fail(raising.throw_in_worker, kind),
    "failure decode": lambda kind: raising.fail(raising.throw_failure_in_host, kind),
    "result decode": lambda kind: raising.give(raising.throw_in_host, kind),
}
OPENING = ("argument decode", "import", "definition")


def right_end(stage: str, kind: type[BaseException]) -> object:
    if stage == "run" and kind is not StopIteration:  # a coroutine cannot raise it
        return "cancelled" if kind is asyncio.CancelledError else kind
    if stage == "run":
        return RuntimeError
    if stage == "definition":
        return NameError  # with a note that says why
    if kind is KeyboardInterrupt and stage in ("result decode", "failure decode"):
        return kind  # it may be from a Ctrl-C: let it pass
    # An exception of code that was not found is reported as such, as by an import in this process.
    return kind if stage in OPENING and issubclass(kind, Exception) else RemoteError


def end_of(task: Any) -> object:
    if task.cancelled():
        return "cancelled"
    try:
        task.result()
    except BaseException as error:
        return type(error), str(error), len(traceback_of(error))
    return "returned"


def traceback_of(error: BaseException) -> list[Any]:
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code)
        traceback = traceback.tb_next
    return frames


@pytest.mark.parametrize("stage", STAGES)
async def test_a_failure_is_told_at_every_stage(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind in KINDS:
        if stage == "import":
            importlib.import_module(write_bad_module(tmp_path, kind))
        script = ModuleType(f"script_of_{kind.__name__}")
        monkeypatch.setitem(sys.modules, script.__name__, script)
    async with Manager(1, workers=1) as manager:
        tasks = {kind: manager.schedule(STAGES[stage](kind)) for kind in KINDS}
        _, hanging = await asyncio.wait(tasks.values(), timeout=10)  # type: ignore[type-var]
        assert not hanging
        found = {kind: end_of(task) for kind, task in tasks.items()}
        again = {kind: end_of(task) for kind, task in tasks.items()}
        assert found == again
        kinds_found = {k: e[0] if isinstance(e, tuple) else e for k, e in found.items()}
        assert kinds_found == {kind: right_end(stage, kind) for kind in KINDS}
        assert manager.stats().restarts == 0
        assert await manager.schedule(asyncio.sleep(0, "alive")) == "alive"
        await unheard(manager, stage)


async def unheard(manager: Manager, stage: str) -> None:
    """The handles of these are dropped: the loop's exception handler is called, and goes on."""
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    for kind in KINDS:
        manager.schedule(STAGES[stage](kind))
        manager.map(raising.run_plain, [kind])
    await manager.join()
    await asyncio.sleep(0)
    loop.set_exception_handler(before)
    ends = [right_end(stage, kind) for kind in KINDS] + [right_end("run", kind) for kind in KINDS]
    count = sum(end != "cancelled" for end in ends)
    if stage == "result decode":  # it is no failure until the result is asked for
        count -= len(KINDS)
    assert len(told) == count
    if stage == "definition":
        assert "on purpose" in str(told[0].__notes__)


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_retry_has_an_end_whatever_it_asks(workers: int) -> None:
    """Odd exceptions of tasks, of predicates, and of classes."""
    kinds: list[type[BaseException]] = [*KINDS, *ODD]
    failures: list[type[BaseException]] = [ValueError, *ODD]
    retries = [Retry(RaisesIt(kind), attempts=2, wait_initial=0, wait_jitter=0) for kind in kinds]
    retries += [Retry(kind, attempts=2, wait_initial=0, wait_jitter=0) for kind in kinds]
    async with Manager(1, workers=workers) as manager:
        tasks = [
            manager.schedule(raising.run(kind), retry=retry)
            for kind in failures
            for retry in retries
        ]
        _, hanging = await asyncio.wait(tasks, timeout=20)
        assert not hanging
        assert {task.state for task in tasks} == {State.FAILED}
        errors = [task.exception() for task in tasks]
        for error in errors[: len(retries)]:
            assert isinstance(error, ValueError)
            assert "of 2 at most" in error.__notes__[-1]
        assert (manager.stats().restarts, len(manager)) == (0, 0)


# ---- primitives of multiprocessing


def keep(things: dict[str, Any]) -> None:
    kept.update(things)


kept: dict[str, Any] = {}


async def put(n: int) -> tuple[int, int]:
    kept["queue"].put(n)
    with kept["lock"], kept["value"].get_lock():
        kept["value"].value += n
    kept["event"].set()
    kept["pipe"].send(n)
    return kept["value"].value, os.getpid()


@pytest.fixture(scope="module")
def value() -> Any:
    """Make a shared value: the process keeps its memory from then on."""
    return multiprocessing.get_context("spawn").Value("i", 0)


async def test_primitives_of_multiprocessing_are_initargs(value: Any) -> None:
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    queue = context.SimpleQueue()
    things: dict[str, Any] = {
        "queue": queue,
        "lock": context.Lock(),
        "value": value,
        "event": context.Event(),
        "pipe": writer,
    }
    with reader, writer:
        async with Manager(1, workers=1, initializer=keep, initargs=(things,)) as manager:
            total, pid = await manager.schedule(put(1))
            os.kill(pid, signal.SIGKILL)
            assert (total, (await manager.schedule(put(2)))[0]) == (1, 3)  # the next has them, too
            assert [queue.get(), queue.get()] == [reader.recv(), reader.recv()] == [1, 2]
            assert things["event"].is_set()
    queue.close()


def test_primitives_for_forked_processes_are_refused() -> None:
    context = multiprocessing.get_context("fork")
    for thing in (context.Lock(), context.Event(), context.Semaphore()):
        with pytest.raises(NotShippable, match=r"get_context\('spawn'\)"):
            Manager(1, workers=1, initializer=keep, initargs=(thing,))
