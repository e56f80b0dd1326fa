from __future__ import annotations

from typing import Any

import pytest

from aioscheduler._outpost import raywords


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("no\n  such\tthing ", "no such thing"),
        (
            "The actor died unexpectedly. pid: 7\nThe actor is dead because its worker process has "
            "died. Some common causes include: (1) the weather",
            "The actor is dead because its worker process has died.",
        ),
        ("class_name: Outpost The actor died because its node has died.", None),
        ("x" * 5000, "x" * 1000),
        ("", "RuntimeError"),
    ],
)
def test_a_line_is_the_end_of_it(said: str, heard: str | None) -> None:
    expected = said.partition("Outpost ")[2] if heard is None else heard
    assert raywords.line(RuntimeError(said)) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_cpus": 8}, "num_cpus: 8"),
        ({"num_cpus": 0}, "nothing but a place"),
        ({"num_cpus": 0.5, "num_gpus": None, "memory": 1e9}, "memory: 1e+09, num_cpus: 0.5"),
        ({"num_cpus": 1, "resources": {"fast": 2}}, "fast: 2, num_cpus: 1"),
    ],
)
def test_what_is_asked(options: dict[str, Any], text: str) -> None:
    assert raywords.asked(options) == text


def test_what_there_is() -> None:
    has = {"CPU": 4.0, "node:10.0.0.9": 1.0, "object_store_memory": 1e9, "fast": 1.0}
    text = "the cluster has CPU: 4, fast: 1, of which are free nothing"
    assert raywords.state(has, {"node:10.0.0.9": 1.0}) == text


def test_there_is_room_for_all() -> None:
    options = {"num_cpus": 1.5, "num_gpus": 1, "resources": {"fast": 2}}
    assert raywords.room(options, 3) == {"num_cpus": 5, "num_gpus": 3, "resources": {"fast": 6}}
    assert raywords.room({"num_cpus": 0}, 3) == {"num_cpus": 1, "num_gpus": 0, "resources": {}}
