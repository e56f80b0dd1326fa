"""What a manager needs to know of an engine: how to start outposts, how many, and their settings.

`aioscheduler.ray.RayEngine` makes one. The protocol of the launcher is in `launcher`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """An engine, on whose nodes the workers of a manager run.

    Attributes:
        nodes: How many outposts to start.
        workers_per_node: How many worker processes each has.
        command: The command line of the launcher: a process that starts outposts, and ends with its
            standard input.
        settings: The settings sent to the launcher first, as JSON: what it asks of a node.
        lost_after: Seconds of silence after which a node is given up.
        code_version: The version of the tasks' code; the nodes must have the same. None: any.
        ssl: Returns the host's context for TLS; None: the connections have none.
    """

    nodes: int
    workers_per_node: int
    command: Sequence[str]
    settings: Mapping[str, object]
    lost_after: float = 15.0
    code_version: str | None = None
    ssl: Callable[[], ssl.SSLContext] | None = None
