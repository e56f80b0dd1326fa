"""The versions that must be the same on both sides of a connection, and the message if they differ.

They are compared before anything else: a worker of another version would fail at its first frame,
or, worse, later.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping

ASKED = {
    "python": "Python",
    "aioscheduler": "aioscheduler",
    "msgpack": "msgpack",
    "cloudpickle": "cloudpickle",
}
_CURE = (
    "install the same on the nodes, or have the engine do it (runtime_env={'pip': [...]}), and "
    "start again"
)
_CODE_CURE = "deploy to the nodes what the host has, or correct its code_version"


def versions(code_version: str | None) -> dict[str, str | None]:
    """Return the versions here that must be the same on both sides.

    Args:
        code_version: The user's name for the version of the tasks' code; None: it has none.
    """
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "aioscheduler": _version("aioscheduler"),
        "msgpack": _version("msgpack").partition(".")[0],
        "cloudpickle": _version("cloudpickle").partition(".")[0],
        "code_version": code_version,
    }


def difference(node: str, here: Mapping[str, object], there: Mapping[str, object]) -> str:
    """Return the message for a node with other versions; "": they are the same."""
    for key, name in ASKED.items():
        if here.get(key) != there.get(key):
            return (
                f"node {node} has {name} {there.get(key)}, and this host has {here.get(key)}; "
                f"{_CURE}"
            )
    if here.get("code_version") != there.get("code_version"):
        return (
            f"node {node} has code_version {there.get('code_version')!r}, and this host has "
            f"{here.get('code_version')!r}; {_CODE_CURE}"
        )
    return ""


def _version(package: str) -> str:
    if package == "aioscheduler":
        from .. import __version__

        return __version__
    return importlib.metadata.version(package)
