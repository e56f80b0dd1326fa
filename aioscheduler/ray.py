"""An engine that runs a `Manager`'s workers on the nodes of a Ray cluster. Needs the extra `ray`.

    async with Manager(engine=RayEngine(nodes=3, workers_per_node=8)) as manager:
        ...

This module only reads the settings, and refuses wrong ones before anything is started. This
process never imports ray: a separate launcher does (`_outpost/ray_launcher.py`).
"""

from __future__ import annotations

import base64
import math
import os
import pickle
import re
import ssl
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ._outpost import certificates
from ._outpost.engine import Engine
from ._scheduling.clock import read_seconds

if find_spec("ray") is None:
    raise ImportError("aioscheduler.ray needs Ray: pip install 'aioscheduler[ray]'", name="ray")

LAUNCHER = Path(__file__).parent / "_outpost" / "ray_launcher.py"
RAY_CLIENT = (
    "is an address of Ray Client, which gives no connection to the nodes: run this program on a "
    'machine of the cluster and give its "host:port", or "auto"'
)
_OURS = {
    "get_if_exists": "an outpost belongs to one manager",
    "lifetime": "an outpost ends with its manager",
    "max_concurrency": "an outpost is called twice in its life",
    "max_restarts": "the manager starts another outpost: see its max_restarts",
    "max_task_retries": "the manager starts another outpost: see its max_restarts",
    "name": "names distinguish the outposts of different managers",
    "namespace": "names distinguish the outposts of different managers",
    "runtime_env": "give RayEngine(runtime_env=...)",
}
"""Options of the actor that the user may not set, and why."""


class RayEngine(Engine):
    """Runs a manager's workers on the nodes of a Ray cluster.

        Manager(engine=RayEngine(nodes=3, workers_per_node=8))

    Several managers may share an engine; each gets its own outposts.

    Args:
        nodes: How many outposts to start, 1 or more: actors that start worker processes. Ray
            places each on a node of its own, as long as the cluster has enough.
        workers_per_node: How many worker processes each outpost starts, 1 or more. The manager's
            `workers` is the product.
        address: The cluster's "host:port". "auto" means the environment variable RAY_ADDRESS, or
            the cluster that runs on this machine. "local" starts a one-node Ray beside this
            process and ends it with it, for experiments and tests.
        lost_after: How long a machine may be silent before it is considered lost: from 1 second
            to 1 hour, in seconds or as a timedelta.
        ports: The first and the last port that outposts may listen on; each outpost uses one port
            of its node. By default any free port.
        code_version: The version of your code, if you install it on the nodes yourself. A node
            whose environment variable AIOSCHEDULER_CODE_VERSION differs, or is not set, is
            refused.
        runtime_env: Ray's description of what the nodes need to run your code, such as
            `{"working_dir": "."}`.
        options: More options of the actor, such as `{"resources": {"fast": 1}}` or
            `{"num_cpus": 4}`; by default `num_cpus` is `workers_per_node`, and
            `scheduling_strategy` is "SPREAD".

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A number is out of range, the address is not usable, an option is reserved, or
            Ray's certificates are not usable.
    """

    def __init__(
        self,
        nodes: int,
        workers_per_node: int,
        *,
        address: str = "auto",
        lost_after: float | timedelta = 15.0,
        ports: tuple[int, int] | None = None,
        code_version: str | None = None,
        runtime_env: Mapping[str, object] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        _check_count("nodes", nodes)
        _check_count("workers_per_node", workers_per_node)
        _check_address(address)
        _check_ports(ports)
        if code_version is not None and not isinstance(code_version, str):
            raise TypeError(f"code_version is a str, not {type(code_version).__name__}")
        if code_version == "":
            raise ValueError("code_version must not be empty: leave it out, or name your code")
        actor = _read_options(options, workers_per_node)
        if runtime_env is not None:
            _check_names("runtime_env", runtime_env)
            actor["runtime_env"] = dict(runtime_env)
        encrypt = None
        if certificates.uses_tls():
            certificates.context(server=False)  # refuse bad ones now, not once a node has started
            encrypt = partial(_host_context)
        super().__init__(
            nodes=nodes,
            workers_per_node=workers_per_node,
            # By its path: `-m` would find it only where this package is installed.
            command=(sys.executable, "-P", str(LAUNCHER)),
            settings={
                "address": address,
                "directory": os.getcwd(),  # relative paths in runtime_env start here
                "nodes": nodes,
                "options": _packed(actor),
                "path": [os.path.abspath(each) for each in sys.path] if address == "local" else [],
                "ports": ports,
                "code_version": code_version,
            },
            lost_after=_read_lost_after(lost_after),
            code_version=code_version,
            ssl=encrypt,
        )


def _host_context() -> ssl.SSLContext:
    made = certificates.context(server=False)
    if made is None:
        raise ValueError("RAY_USE_TLS was set when the engine was made, and is not any more")
    return made


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} is an int, not {type(count).__name__}")
    if count < 1:
        raise ValueError(f"{name} must be 1 or more, not {count}")


def _read_lost_after(value: float | timedelta) -> float:
    seconds = read_seconds("lost_after", value)
    if not 1 <= seconds <= 3600:
        # A busy machine may pause for less, and the kernel counts in whole seconds.
        raise ValueError(f"lost_after must be from 1 to 3600 seconds, not {seconds:g}")
    return seconds


def _check_address(address: object) -> None:
    if not isinstance(address, str):
        raise TypeError(f'address is a str, such as "auto", not {type(address).__name__}')
    if "://" in address:
        raise ValueError(f"address={address!r} {RAY_CLIENT}")
    if address in ("auto", "local"):
        return
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise ValueError(f'address must be "host:port", "auto" or "local", not {address!r}')


def _check_ports(ports: object) -> None:
    if ports is None:
        return
    if not isinstance(ports, tuple) or [type(each) for each in ports] != [int, int]:
        raise TypeError(f"ports is a tuple of two ints, the first and the last, not {ports!r:.100}")
    first, last = ports
    if not 0 < first <= last < 1 << 16:
        raise ValueError(f"ports must be from 1 to 65535, the first before the last, not {ports!r}")


def _read_options(options: Mapping[str, object] | None, workers_per_node: int) -> dict[str, object]:
    own = {} if options is None else options
    _check_names("options", own)
    for name in own:
        if name in _OURS:
            raise ValueError(f"options[{name!r}] is reserved: {_OURS[name]}")
    for name in ("num_cpus", "num_gpus", "memory"):
        amount = own.get(name)
        if amount is None:
            continue
        if not isinstance(amount, int | float) or isinstance(amount, bool):
            raise TypeError(f"options[{name!r}] is a number, not {type(amount).__name__}")
        if not (math.isfinite(amount) and amount >= 0):
            raise ValueError(f"options[{name!r}] must be finite, and 0 or more, not {amount!r}")
    return {"num_cpus": workers_per_node, "scheduling_strategy": "SPREAD", **own}


def _check_names(name: str, given: object) -> None:
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is a dict, not {type(given).__name__}")
    for key in given:
        if not isinstance(key, str):
            raise TypeError(f"the keys of {name} are str, not {type(key).__name__}")


def _packed(options: dict[str, object]) -> str:
    """Return text from which the launcher restores the options; a strategy may be a Ray object."""
    try:
        return base64.b64encode(pickle.dumps(options)).decode()
    except Exception as error:
        raise TypeError(
            f"options and runtime_env must be picklable for the launcher: {error}"
        ) from error
