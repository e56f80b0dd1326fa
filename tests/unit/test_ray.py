from __future__ import annotations

import base64
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from aioscheduler import Manager

if importlib.util.find_spec("ray") is None:  # not imported here
    pytest.skip("Ray is not installed: pip install aioscheduler[ray]", allow_module_level=True)

from aioscheduler.ray import LAUNCHER, RayEngine


@pytest.fixture(autouse=True)
def no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


def actor(engine: RayEngine) -> dict[str, Any]:
    packed = engine.settings["options"]
    assert isinstance(packed, str)
    options = pickle.loads(base64.b64decode(packed))
    assert isinstance(options, dict)
    return options


def test_what_is_left_out() -> None:
    engine = RayEngine(3, 8)
    assert (engine.nodes, engine.workers_per_node, engine.lost_after) == (3, 8, 15.0)
    assert (engine.code_version, engine.ssl) == (None, None)
    assert actor(engine) == {"num_cpus": 8, "scheduling_strategy": "SPREAD"}
    settings = engine.settings
    assert (settings["address"], settings["ports"], settings["path"]) == ("auto", None, [])
    assert settings["directory"] == os.getcwd()


def test_what_is_given() -> None:
    engine = RayEngine(
        1,
        2,
        address="[::1]:6379",
        lost_after=timedelta(seconds=4),
        ports=(7000, 7009),
        code_version="v7",
        runtime_env={"working_dir": "."},
        options={"num_cpus": 0.5, "resources": {"fast": 1}, "scheduling_strategy": "DEFAULT"},
    )
    assert (engine.lost_after, engine.code_version) == (4.0, "v7")
    assert engine.settings["address"] == "[::1]:6379"
    assert actor(engine) == {
        "num_cpus": 0.5,
        "resources": {"fast": 1},
        "runtime_env": {"working_dir": "."},
        "scheduling_strategy": "DEFAULT",
    }


def test_what_the_launcher_is_told_is_json() -> None:
    settings = RayEngine(1, 1, address="local", ports=(1, 2)).settings
    told = json.loads(json.dumps(settings))
    assert told["ports"] == [1, 2]
    assert [os.path.abspath(each) for each in sys.path] == told["path"]


def test_the_launcher_is_there() -> None:
    assert LAUNCHER.is_file()
    assert RayEngine(1, 1).command == (sys.executable, "-P", str(LAUNCHER))


@pytest.mark.parametrize("address", ["auto", "local", "10.0.0.1:6379", "head.svc:1", "[::1]:65535"])
def test_an_address_that_can_be(address: str) -> None:
    assert RayEngine(1, 1, address=address).settings["address"] == address


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:0", "head:65536", "::1:6379", "a b:1", "h:1\n"]
)
def test_an_address_that_cannot_be(address: str) -> None:
    with pytest.raises(ValueError, match='address must be "host:port", "auto" or "local"'):
        RayEngine(1, 1, address=address)


@pytest.mark.parametrize("address", ["ray://head:10001", "anyscale://it"])
def test_through_ray_client_there_is_no_way(address: str) -> None:
    with pytest.raises(ValueError, match="Ray Client.*run this program on a machine of the"):
        RayEngine(1, 1, address=address)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": 0}, "nodes must be 1 or more, not 0"),
        ({"workers_per_node": -1}, "workers_per_node must be 1 or more, not -1"),
        ({"lost_after": 0.5}, "lost_after must be from 1 to 3600 seconds, not 0.5"),
        ({"lost_after": timedelta(hours=2)}, "from 1 to 3600 seconds, not 7200"),
        ({"lost_after": float("nan")}, "lost_after must be finite"),
        ({"ports": (7, 6)}, "ports must be from 1 to 65535, the first before the last"),
        ({"ports": (0, 6)}, "ports must be from 1 to 65535"),
        ({"ports": (1, 65536)}, "ports must be from 1 to 65535"),
        ({"code_version": ""}, "code_version must not be empty"),
        ({"options": {"max_restarts": 3}}, r"options\['max_restarts'\] is reserved.*its max_res"),
        ({"options": {"runtime_env": {}}}, r"is reserved: give RayEngine\(runtime_env="),
        ({"options": {"name": "mine"}}, "names distinguish the outposts of different managers"),
        ({"options": {"num_cpus": -1}}, r"options\['num_cpus'\] must be finite, and 0 or more"),
        ({"options": {"memory": float("inf")}}, r"options\['memory'\] must be finite"),
    ],
)
def test_a_wrong_value_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RayEngine(**{"nodes": 1, "workers_per_node": 1, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodes": 2.0}, "nodes is an int, not float"),
        ({"nodes": True}, "nodes is an int, not bool"),
        ({"workers_per_node": "8"}, "workers_per_node is an int, not str"),
        ({"address": None}, 'address is a str, such as "auto", not NoneType'),
        ({"lost_after": "15"}, "lost_after is seconds or a timedelta, not str"),
        ({"ports": 7000}, "ports is a tuple of two ints"),
        ({"ports": [7000, 7001]}, "ports is a tuple of two ints"),
        ({"ports": (7000,)}, "ports is a tuple of two ints"),
        ({"ports": (True, 2)}, "ports is a tuple of two ints"),
        ({"code_version": 7}, "code_version is a str, not int"),
        ({"runtime_env": "."}, "runtime_env is a dict, not str"),
        ({"runtime_env": {1: 2}}, "the keys of runtime_env are str, not int"),
        ({"options": ["num_cpus"]}, "options is a dict, not list"),
        ({"options": {"num_cpus": "2"}}, r"options\['num_cpus'\] is a number, not str"),
        ({"options": {"num_gpus": True}}, r"options\['num_gpus'\] is a number, not bool"),
        ({"options": {"resources": {"x": open}, "f": lambda: 0}}, "must be picklable"),
    ],
)
def test_a_wrong_type_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        RayEngine(**{"nodes": 1, "workers_per_node": 1, **given})


def test_certificates_that_cannot_be_used_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    monkeypatch.delenv("RAY_TLS_SERVER_CERT", raising=False)
    with pytest.raises(ValueError, match="RAY_USE_TLS is set, and RAY_TLS_SERVER_CERT is not"):
        RayEngine(1, 1)


def test_without_ray_the_module_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "ray" else find(name, *more)
    )
    monkeypatch.delitem(sys.modules, "aioscheduler.ray")
    with pytest.raises(ImportError, match=r"pip install 'aioscheduler\[ray\]'"):
        importlib.import_module("aioscheduler.ray")


def test_ray_is_not_imported_by_an_engine_of_it() -> None:
    code = (
        "import sys; from aioscheduler.ray import RayEngine; from aioscheduler import Manager\n"
        "Manager(engine=RayEngine(2, 2))\n"
        "print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("workers", [0, 3, 5])
def test_how_many_workers_there_are_is_the_engine_s_to_say(workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        Manager(workers=workers, engine=RayEngine(2, 2))


def test_the_product_may_be_said_all_the_same() -> None:
    Manager(workers=4, engine=RayEngine(2, 2))
