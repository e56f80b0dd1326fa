"""The number of cores that this process may use, which may be fewer than the machine's.

    affinity, PYTHON_CPU_COUNT ─┐
                                ├─► the smallest
    quota of each control group ┘   (`docker run --cpus=2`, a limit of Kubernetes)

A quota is an amount of CPU time in each period; when it is used up, all threads of the group stand
still until the next. So workers beyond the quota make tasks late without adding throughput.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores() -> int:
    """Return how many cores this process may use, at least 1."""
    count: int | None
    if hasattr(os, "process_cpu_count"):  # Python 3.13, which also looks at PYTHON_CPU_COUNT
        count = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
    return max(1, min([count or 1, *quotas(Path("/proc/self"))]))


def quotas(process: Path) -> Iterator[int]:
    """Yield the quotas of a process's control groups and their parents, in cores, rounded up.

    Args:
        process: The process's folder in `/proc`; without one, no quota is known.
    """
    try:
        groups = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        number, controllers, path = group.split(":", 2)
        unified = number == "0"  # version 2
        if not unified and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            *_, root, point = mount.split(" ", 5)[:5]
            kind, _, options = mount.partition(" - ")[2].split(" ", 2)
            if (unified and kind == "cgroup2") or (
                not unified and kind == "cgroup" and "cpu" in options.split(",")
            ):
                yield from _quotas(_unescape(point), PurePosixPath(path), _unescape(root), unified)


def _unescape(path: str) -> PurePosixPath:
    return PurePosixPath(path.replace(r"\040", " "))


def _quotas(
    point: PurePosixPath, path: PurePosixPath, root: PurePosixPath, unified: bool
) -> Iterator[int]:
    """Yield the quotas of a group and its parents, up to the mount point."""
    top = Path(point)
    # A container may see its own group at the mount point and not know its path there.
    group = top / path.relative_to(root) if path.is_relative_to(root) else top
    while True:
        try:
            if unified:
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota = (group / "cpu.cfs_quota_us").read_text()
                period = (group / "cpu.cfs_period_us").read_text()
            if int(quota) > 0:  # -1 is none, in version 1
                yield math.ceil(int(quota) / int(period))
        except (OSError, ValueError):  # the topmost group has no file; version 2 says "max"
            pass
        if group == top:
            return
        group = group.parent
