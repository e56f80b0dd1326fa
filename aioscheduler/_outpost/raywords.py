"""What Ray is asked for, has and says, in words of one line; pure.

Amounts are Ray's: of CPUs, GPUs, bytes of memory, and what users call resources of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

LENGTH = 1000  # characters, of which more is not read


def line(error: BaseException) -> str:
    """Return what an error says."""
    text = " ".join(str(error).split())
    # Ray says first which actor it was, and last what it may have been of in general.
    text = re.sub("^.*(?=The actor (is dead|died) because)", "", text)
    return text.partition(" Some common causes")[0][:LENGTH] or type(error).__name__


def asked(options: Mapping[str, Any]) -> str:
    """Return what an actor with these options needs of a node."""
    names = ("num_cpus", "num_gpus", "memory")
    amounts = {name: options[name] for name in names if options.get(name)}
    amounts |= options.get("resources", {})
    return _amounts(amounts) if amounts else "nothing but a place"


def state(has: Mapping[str, float], free: Mapping[str, float]) -> str:
    """Return what the cluster has."""
    return f"the cluster has {_amounts(has)}, of which are free {_amounts(free)}"


def room(options: Mapping[str, Any], nodes: int) -> dict[str, Any]:
    """Return what a Ray of one node must be started with, to have room for so many actors."""
    return {
        "num_cpus": max(1, math.ceil(nodes * options["num_cpus"])),
        "num_gpus": math.ceil(nodes * (options.get("num_gpus") or 0)),
        "resources": {name: n * nodes for name, n in options.get("resources", {}).items()},
    }


def _amounts(resources: Mapping[str, float]) -> str:
    """Of nodes' own names, and of what Ray keeps for itself, nothing is said."""
    own = {k: v for k, v in resources.items() if not k.startswith(("node:", "object_store"))}
    return ", ".join(f"{name}: {amount:g}" for name, amount in sorted(own.items())) or "nothing"
