"""Ray's requests, resources and errors as text of one line; pure.

Amounts are Ray's: CPUs, GPUs, bytes of memory, and resources that users define.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

LENGTH = 1000  # characters


def line(error: BaseException) -> str:
    """Return the text of an error in one line."""
    text = " ".join(str(error).split())
    # Ray names the actor first, and common causes last.
    text = re.sub("^.*(?=The actor (is dead|died) because)", "", text)
    return text.partition(" Some common causes")[0][:LENGTH] or type(error).__name__


def asked(options: Mapping[str, Any]) -> str:
    """Return what an actor with these options asks of a node, as text."""
    names = ("num_cpus", "num_gpus", "memory")
    amounts = {name: options[name] for name in names if options.get(name)}
    amounts |= options.get("resources", {})
    return _amounts(amounts) if amounts else "nothing but a place"


def state(has: Mapping[str, float], free: Mapping[str, float]) -> str:
    """Return what the cluster has, and what of it is free, as text."""
    return f"the cluster has {_amounts(has)}, of which are free {_amounts(free)}"


def room(options: Mapping[str, Any], nodes: int) -> dict[str, Any]:
    """Return the arguments with which a Ray of one node has room for actors on `nodes` nodes."""
    return {
        "num_cpus": max(1, math.ceil(nodes * options["num_cpus"])),
        "num_gpus": math.ceil(nodes * (options.get("num_gpus") or 0)),
        "resources": {name: n * nodes for name, n in options.get("resources", {}).items()},
    }


def _amounts(resources: Mapping[str, float]) -> str:
    """Return resources as text, without node names and Ray's object store."""
    own = {k: v for k, v in resources.items() if not k.startswith(("node:", "object_store"))}
    return ", ".join(f"{name}: {amount:g}" for name, amount in sorted(own.items())) or "nothing"
