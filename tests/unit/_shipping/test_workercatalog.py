"""What a worker makes of the log, and what it says of what it cannot read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from scripted import Script

from aioscheduler._shipping.definitions import CODE, IMPORTED, SPACE
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport.wire import pack


def test_what_a_script_says_of_itself_is_there(
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
    assert caplog.text.count("the global 'SCALE' of script_of_mine stays") == 1


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
    worker.read(pack([CODE, 1, 0, b""]))
    assert "the module gone_there cannot be read in this worker: ModuleNotFound" in caplog.text
    assert "code of a module that is missing cannot be read" in caplog.text
    with pytest.raises(ModuleNotFoundError, match="gone_there"):
        worker.function(1)


def test_a_line_that_cannot_be_read_fails_where_it_is_used(
    world: Script, caplog: pytest.LogCaptureFixture
) -> None:
    world.host.catalog.log.write(1, b"x")
    assert world.trip(world.call(len, "abc")) == 3
    assert "cannot be read" in caplog.text
    with pytest.raises(Exception, match=r".+"):
        world.worker.function(0)
