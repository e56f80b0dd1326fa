"""A worker reads the log, and reports lines that it cannot read."""

from __future__ import annotations

import importlib
import logging
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripted import Script

from aioscheduler import registry
from aioscheduler._shipping.definitions import CODE, IMPORTED, OPTIONS, SPACE
from aioscheduler._shipping.payloads import names_in
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport.wire import pack
from aioscheduler.options import Options
from aioscheduler.retry import Retry


def test_the_attributes_of_a_script_are_there(
    world: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "package_of_it").mkdir()
    (tmp_path / "package_of_it" / "beside.py").write_text("N = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    world.module.__doc__, world.module.__package__ = "What it does.", "package_of_it"
    world.run("async def look(): return __doc__, __package__, __name__")
    world.run("async def load():\n    from . import beside\n    return beside.N\n")
    with caplog.at_level(logging.INFO, "aioscheduler"):
        assert world.trip(world.load()) == 7
        assert world.trip(world.look()) == ("What it does.", "package_of_it", "script_of_mine")
        world.module.__doc__ = "Something else."
        assert world.trip(world.look())[0] == "Something else."
    assert not caplog.records


def test_what_a_worker_has_bound_stays(world: Script, caplog: pytest.LogCaptureFixture) -> None:
    world.run(
        "async def bind():\n    global SCALE\n    SCALE = 'mine'\nasync def look(): return SCALE"
    )
    assert world.trip(world.look()) == 10
    world.trip(world.bind())
    with caplog.at_level(logging.INFO, "aioscheduler"):
        for n in range(2):
            world.run(f"SCALE = {n}")
            assert world.trip(world.look()) == "mine"
    assert caplog.text.count("the global 'SCALE' of script_of_mine keeps") == 1


def test_what_cannot_be_read_is_named_in_the_log(
    world: Script, caplog: pytest.LogCaptureFixture
) -> None:
    world.run(
        "class Odd:\n    def __reduce__(self): return int, ('odd',)\n"
        "ODD = Odd()\nclass Owner:\n    one = ODD\n"
        "async def look(): return ODD\nasync def own(): return Owner"
    )
    with pytest.raises(NameError) as caught:
        world.trip(world.look())
    world.worker.explain(caught.value)
    assert "cannot be read in this worker: ValueError" in caught.value.__notes__[0]
    assert "the global 'ODD' of script_of_mine cannot be read in this worker: Val" in caplog.text
    with pytest.raises(NameError):
        world.trip(world.own())
    assert "the class Owner cannot be read in this worker: ValueError" in caplog.text
    assert "the global 'Owner' of script_of_mine cannot be read" in caplog.text


def test_a_module_that_is_missing_there_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = WorkerCatalog()
    worker.read(pack([SPACE, 0, "gone_there", IMPORTED, None]))
    worker.read(pack([CODE, 1, 0, b"", None]))
    assert "the module gone_there cannot be read in this worker: ModuleNotFound" in caplog.text
    assert "code of a module that is missing cannot be read" in caplog.text
    with pytest.raises(ModuleNotFoundError, match="gone_there"):
        worker.function(1)


def test_a_worker_knows_which_functions_of_a_script_are_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for table in ("_names", "_functions", "_codes"):
        monkeypatch.setattr(registry, table, {})
    code = (
        "from aioscheduler.registry import durable\nfrom aioscheduler.retry import Retry\n"
        "class Refused(Exception): pass\nasync def plain(user): return user\n"
        "@durable('remind', timeout=3, retry=Retry(Refused, attempts=2), on_loss='fail')\n"
        "async def remind(user): return user\n"
    )
    with Script(code) as world:
        for name in ("remind", "plain"):
            number, *_ = world.host.take(getattr(world, name)(1))
            world.tell()
            there = world.worker.function(number)
            assert there is not getattr(world, name)
            coro = there(1)
            found = registry.of_coroutine(coro)
            coro.close()
            if name == "plain":
                assert found is None
                continue
            assert found is not None
            assert (found.name, found.qualname, found.once) == (
                name,
                f"script_of_mine:{name}",
                True,
            )
            retry: Any = found.options.retry
            assert (found.options.timeout, retry.attempts) == (3, 2)
            assert retry.on.__name__ == "Refused"


def test_a_line_that_cannot_be_read_fails_where_it_is_used(
    world: Script, caplog: pytest.LogCaptureFixture
) -> None:
    world.host.catalog.log.write(1, b"x")
    assert world.trip(world.call(len, "abc")) == 3
    assert "cannot be read" in caplog.text
    with pytest.raises(Exception, match=r".+"):
        world.worker.function(0)


def test_options_are_read_where_a_task_has_them_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = WorkerCatalog()
    retry = pickle.dumps(Retry(attempts=3))
    worker.read(pack([OPTIONS, 5, "a", 2.0, None, retry]))
    worker.read(pack([OPTIONS, 6, "b", None, None, b"\x80\x05cno_such_module\nasks\n."]))
    found = worker.find_options(5)
    assert found == Options("a", 2.0, None, Retry(attempts=3))
    assert worker.find_options(5) is found
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            worker.find_options(6)
    module = ModuleType("no_such_module")
    module.__dict__["asks"] = "it is there now"
    monkeypatch.setitem(sys.modules, "no_such_module", module)
    assert worker.find_options(6).retry == "it is there now"
    for line in (5, 6):
        worker._forget(line)
        with pytest.raises(KeyError):
            worker.find_options(line)


def test_options_go_to_the_host_with_what_their_pickle_names(world: Script) -> None:
    assert WorkerCatalog().options_number(Options("a", 2.0)) == ("a", 2.0, None, None)
    world.run("class Mine(Exception): pass\nasync def give_class(): return Mine")
    world.trip(world.give_class())
    mine = next(iter(world.worker.classes.values()))
    *_, retry = world.worker.options_number(Options(retry=Retry(mine)))
    assert list(names_in(retry)) == [world.worker.line_of_class(mine)]


def test_a_function_that_another_worker_has_made_sees_the_module_that_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_there.py").write_text("N = 7\nmake = lambda: lambda: N\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    payload = WorkerCatalog().pickle(importlib.import_module("imported_there").make())
    monkeypatch.delitem(sys.modules, "imported_there")
    assert WorkerCatalog().decode(payload)() == 7
    assert importlib.import_module("imported_there").N == 7  # the real module, not an empty one
