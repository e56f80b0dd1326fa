from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aioscheduler._processes import cores
from aioscheduler._processes.cores import quotas, usable_cores


class Tree:
    """Files like those of a kernel."""

    def __init__(self, folder: Path) -> None:
        self.process = folder / "process"
        self.mounted = folder / "mounted here"
        self.process.mkdir()
        self.mounted.mkdir()

    def say(self, group: str, mount: str) -> None:
        self.process.joinpath("cgroup").write_text(f"7:memory:/m\n{group}\n3:cpuacct:/a\n")
        point = str(self.mounted).replace(" ", r"\040")
        other = "23 1 0:5 / /proc rw,nosuid shared:12 - proc proc rw"
        self.process.joinpath("mountinfo").write_text(f"{other}\n{mount.format(point)}\n")

    def quota(self, group: str, **files: str) -> None:
        folder = self.mounted / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("cpu_", "cpu.")).write_text(text + "\n")

    def quotas(self) -> list[int]:
        return list(quotas(self.process))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


VERSION_2 = "30 23 0:26 / {} rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate"
VERSION_1 = "32 31 0:29 / {} rw,relatime - cgroup cgroup rw,cpu,cpuacct"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50000 100000", [1]),
        ("100000 100000", [1]),
        ("100001 100000", [2]),
        ("250000 100000", [3]),
        ("max 100000", []),
        ("", []),
        ("nonsense 5", []),
    ],
)
def test_version_2(tree: Tree, text: str, expected: list[int]) -> None:
    tree.say("0::/", VERSION_2)
    tree.quota("", cpu_max=text)
    assert tree.quotas() == expected


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", []), ("50000", [1]), ("100000", [1]), ("350000", [4])]
)
def test_version_1(tree: Tree, quota: str, expected: list[int]) -> None:
    tree.say("4:cpu,cpuacct:/", VERSION_1)
    tree.quota("", cpu_cfs_quota_us=quota, cpu_cfs_period_us="100000")
    assert tree.quotas() == expected


def test_every_group_above_counts(tree: Tree) -> None:
    tree.say("0::/a/b/c", VERSION_2)
    tree.quota("a", cpu_max="150000 100000")
    tree.quota("a/b", cpu_max="max 100000")
    tree.quota("a/b/c", cpu_max="700000 100000")
    assert tree.quotas() == [7, 2]


def test_a_container_that_sees_its_group_at_the_mount_point(tree: Tree) -> None:
    for path, root in (("/docker/x", "/docker/x"), ("/docker/x/y", "/docker/x"), ("/", "/../up")):
        tree.say(f"4:cpu:{path}", f"32 31 0:29 {root} {{}} rw - cgroup cgroup rw,cpu")
        tree.quota("", cpu_cfs_quota_us="200000", cpu_cfs_period_us="100000")
        assert tree.quotas() == [2]


def test_where_there_are_no_groups(tmp_path: Path, tree: Tree) -> None:
    assert list(quotas(tmp_path / "nothing")) == []
    tree.say("0::/", VERSION_1)  # a group that is not mounted
    assert tree.quotas() == []


@pytest.mark.parametrize(
    ("count", "found", "expected"), [(4, [], 4), (4, [2, 3], 2), (2, [8], 2), (None, [], 1)]
)
def test_the_least_of_them(
    monkeypatch: Any, count: int | None, found: list[int], expected: int
) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: count, raising=False)
    monkeypatch.setattr(cores, "quotas", lambda process: iter(found))
    assert usable_cores() == expected


def test_this_machine_has_a_core(monkeypatch: Any) -> None:
    assert usable_cores() >= 1
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    assert usable_cores() >= 1
