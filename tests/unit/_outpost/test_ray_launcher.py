"""The launcher with a fake Ray of a few lines; `test_nodes` has the real one."""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LAUNCHER = Path(__file__).parents[3] / "aioscheduler" / "_outpost" / "ray_launcher.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray is asked for on Linux alone")

RAY = """
import asyncio, json, os, time
from . import exceptions
said = open(os.environ["SAID"], "a", buffering=1)

def init(**given):
    said.write(json.dumps(["init", given]) + "\\n")
    print("what Ray prints")
    if os.environ.get("FAILS"):
        raise eval(os.environ["FAILS"])
    time.sleep(float(os.environ.get("LASTS", "0")))

class Call:
    def __init__(self, call): self.call = call
    def remote(self): return self.call()

class Actor:
    def __init__(self, name, args):
        self.name, self.args, self.dead = name, args, asyncio.Event()
        self.listen, self.run = Call(self._listen), Call(self._run)
    async def _listen(self):
        if os.environ.get("LISTENS") == "never":
            await self.dead.wait()
            raise exceptions.ActorDiedError("The actor is dead because it was killed")
        if os.environ.get("LISTENS") == "fails":
            raise exceptions.RayTaskError("a long way", RuntimeError("on the node 10.0.0.9: why"))
        return "10.0.0.9", 7000, "10.0.0.9"
    async def _run(self):
        if not hasattr(self, "unreachable"):
            self.unreachable = True
            if "ENDS" not in os.environ:
                raise exceptions.ActorUnavailableError("try again")
        if "ENDS" in os.environ:
            self.loop.call_later(float(os.environ["ENDS"]), self.dead.set)
        await self.dead.wait()
        raise exceptions.ActorDiedError("Which it was. The actor is dead because\\n of it. "
            "Some common causes include: the weather")

class Options:
    def __init__(self, given): self.given = given
    def remote(self, *args):
        actors[self.given["name"]] = actor = Actor(self.given["name"], args)
        said.write(json.dumps(["actor", self.given, args]) + "\\n")
        actor.loop = loop[0]
        return actor

class Class:
    def options(self, **given):
        if "nonsense" in given: raise ValueError("nonsense is no option")
        loop[:] = [asyncio.get_running_loop()]
        return Options(given)

actors, loop = {}, []
def remote(cls): return Class()
def get_actor(name, namespace): return actors.get(name) or said.write(f'["old", "{name}"]\\n')
def kill(actor, no_restart):
    if isinstance(actor, Actor):
        said.write(json.dumps(["kill", actor.name]) + "\\n")
        actor.loop.call_soon_threadsafe(actor.dead.set)
def cluster_resources(): return {"CPU": 4.0, "node:10.0.0.9": 1.0}
def available_resources(): return {"CPU": 1.5}
def shutdown(): said.write('["shutdown"]\\n')
"""
ERRORS = """
class RayError(Exception): pass
class ActorUnavailableError(RayError): pass
class ActorDiedError(RayError): pass
class RayTaskError(RayError):
    def __init__(self, text, cause):
        super().__init__(text)
        self.cause = cause
"""


class Beside:
    """A launcher, its lines, and its calls of Ray."""

    def __init__(self, folder: Path) -> None:
        (folder / "ray").mkdir()
        (folder / "ray" / "__init__.py").write_text(RAY)
        (folder / "ray" / "exceptions.py").write_text(ERRORS)
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(folder), "SAID": str(folder / "said")}
        self.environment.pop("RAY_ADDRESS", None)
        self.settings: dict[str, Any] = {
            "address": "auto",
            "code_version": "v7",
            "directory": str(folder),
            "manager": "m",
            "nodes": 2,
            "path": ["/here", "/there"],
            "ports": [7000, 7001],
        }
        self.options: dict[str, Any] = {"num_cpus": 3}
        self.process: subprocess.Popen[str] | None = None

    def start(self, **environment: str) -> None:
        packed = base64.b64encode(pickle.dumps(self.options)).decode()
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(LAUNCHER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **environment},
        )
        self.say(settings={**self.settings, "options": packed})

    def say(self, **line: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = json.loads(self.process.stdout.readline())
        assert isinstance(line, dict)
        return line

    def end(self) -> tuple[int, str, str]:
        """Close its input; return its status, its remaining output, and its standard error."""
        assert self.process is not None
        out, err = self.process.communicate()
        return self.process.returncode, out, err

    def asked(self) -> list[list[Any]]:
        return [json.loads(line) for line in (self.folder / "said").read_text().splitlines()]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Beside]:
    beside = Beside(tmp_path)
    yield beside
    if beside.process is not None:
        beside.process.kill()
        beside.process.communicate()


def test_an_outpost_is_started_and_its_end_is_told(launcher: Beside) -> None:
    launcher.start()
    assert launcher.hear() == {"up": True}
    launcher.say(start=1, secret="ab")
    assert launcher.hear() == {"started": 1, "host": "10.0.0.9", "port": 7000, "node": "10.0.0.9"}
    launcher.say(end=1)  # it does not end by itself
    assert launcher.hear() == {"lost": 1, "text": "The actor is dead because of it."}
    status, out, err = launcher.end()
    assert (status, out) == (0, "")
    assert "what Ray prints" in err
    init, actor, *rest = launcher.asked()
    assert init[1]["address"] == "auto"
    assert actor[1] == {
        "lifetime": "detached",
        "max_concurrency": 2,
        "max_restarts": 0,
        "max_task_retries": 0,
        "name": "outpost-m-1",
        "namespace": "aioscheduler",
        "num_cpus": 3,
    }
    assert actor[2] == ["ab", [7000, 7001], "v7"]
    assert rest == [["kill", "outpost-m-1"], ["shutdown"]]


def test_an_outpost_that_ends_by_itself_is_not_killed(launcher: Beside) -> None:
    launcher.start(ENDS="0.3")
    assert launcher.hear() == {"up": True}
    launcher.say(start=1, secret="ab")
    assert launcher.hear()["started"] == 1
    status, out, _ = launcher.end()
    assert status == 0
    assert json.loads(out)["lost"] == 1
    assert launcher.asked()[2:] == [["shutdown"]]


def test_what_waits_says_so_and_is_withdrawn_at_the_end(launcher: Beside) -> None:
    launcher.settings["wait_time"] = 0.01
    launcher.options["resources"] = {"fast": 2}
    launcher.start(LISTENS="never")
    assert launcher.hear() == {"up": True}
    launcher.say(start=3, secret="ab")
    text = "it asks for fast: 2, num_cpus: 3; the cluster has CPU: 4, of which are free CPU: 1.5"
    assert launcher.hear() == {"waits": 3, "text": text}
    assert launcher.end()[0] == 0
    assert launcher.asked()[2:][0] == ["kill", "outpost-m-3"]


def test_a_failure_on_a_node_is_reported(launcher: Beside) -> None:
    launcher.start(LISTENS="fails")
    assert launcher.hear() == {"up": True}
    launcher.say(start=1, secret="ab")
    assert launcher.hear() == {"lost": 1, "text": "on the node 10.0.0.9: why"}


def test_an_outpost_of_a_launcher_before_is_ended_by_its_name(launcher: Beside) -> None:
    launcher.start()
    assert launcher.hear() == {"up": True}
    launcher.say(end=7)
    assert launcher.end()[0] == 0
    assert ["old", "outpost-m-7"] in launcher.asked()


def test_a_ray_of_its_own_has_room_for_all(launcher: Beside) -> None:
    launcher.settings["address"] = "local"
    own = {"env_vars": {"MINE": "1"}, "working_dir": "."}
    launcher.options = {"num_cpus": 1.5, "num_gpus": 1, "resources": {"fast": 1}}
    launcher.options["runtime_env"] = own
    launcher.start(RAY_ADDRESS="10.0.0.1:1")
    assert launcher.hear() == {"up": True}
    assert launcher.end()[0] == 0
    (_, given), *rest = launcher.asked()
    assert (given["address"], given["num_cpus"], given["num_gpus"]) == ("local", 3, 2)
    assert given["resources"] == {"fast": 2}
    assert given["_node_ip_address"].startswith("127.")
    assert given["runtime_env"] == {
        "env_vars": {"MINE": "1", "PYTHONPATH": "/here:/there"},
        "working_dir": ".",
    }
    assert rest == [["shutdown"]]


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        ("ConnectionError('none runs')", "there is no Ray cluster at the address 'auto': none run"),
        (
            "RuntimeError('Version mismatch')",
            "Ray cannot be used at the address 'auto': RuntimeErr",
        ),
    ],
)
def test_why_there_is_no_cluster_is_told(launcher: Beside, fails: str, text: str) -> None:
    launcher.start(FAILS=fails)
    assert launcher.hear()["refused"].startswith(text)
    assert launcher.end()[:2] == (1, "")


def test_without_ray_it_says_what_to_install(launcher: Beside) -> None:
    (launcher.folder / "ray" / "__init__.py").write_text("raise ImportError('no such thing')")
    launcher.start()
    text = "ray cannot be imported: no such thing: pip install aioscheduler[ray]"
    assert launcher.hear() == {"refused": text}


def test_an_option_that_ray_has_not_is_refused(launcher: Beside) -> None:
    launcher.options["nonsense"] = 1
    launcher.start()
    assert launcher.hear() == {
        "refused": "Ray refuses the options: ValueError: nonsense is no option"
    }


def test_a_dead_address_is_refused_by_its_name(launcher: Beside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    launcher.settings["address"] = f"127.0.0.1:{port}"
    launcher.start(RAY_ADDRESS="10.0.0.1:1")  # a given address takes precedence
    assert f"nothing answers at the address '127.0.0.1:{port}'" in launcher.hear()["refused"]
    assert (launcher.folder / "said").read_text() == ""


def test_the_environment_s_address_is_taken_and_named(launcher: Beside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    launcher.start(RAY_ADDRESS=address)
    assert f"nothing answers at RAY_ADDRESS={address}" in launcher.hear()["refused"]


def test_the_environment_may_not_name_ray_client(launcher: Beside) -> None:
    launcher.start(RAY_ADDRESS="ray://head:10001")
    assert "RAY_ADDRESS=ray://head:10001 is an address of Ray Client" in launcher.hear()["refused"]


def test_a_ray_that_never_comes_back_is_given_up(launcher: Beside) -> None:
    launcher.settings["connect_time"] = 0.2
    launcher.start(LASTS="50")
    text = launcher.hear()["refused"]
    assert text.startswith("Ray has not found its cluster (address='auto') in 0 s: it must be up")
    assert "ray start --address=HOST:PORT --num-cpus=0" in text
    assert launcher.end()[0] == 1


def test_one_that_connects_ends_with_its_input(launcher: Beside) -> None:
    launcher.start(LASTS="50")
    assert launcher.end()[:2] == (1, "")


def test_a_launcher_without_input_ends(launcher: Beside) -> None:
    process = subprocess.run(
        [sys.executable, "-P", str(LAUNCHER)], stdin=subprocess.DEVNULL, check=True
    )
    assert process.returncode == 0
