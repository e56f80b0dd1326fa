"""What a manager is told of an engine: how outposts are started, how many, and what holds for them.

`aioscheduler.ray.RayEngine` makes one. What the launcher is told, and answers, is in `launcher`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """Where the workers of a manager are to run.

    Attributes:
        nodes: How many outposts.
        workers_per_node: How many worker processes each has.
        command: The launcher: a process that starts outposts, and ends with its standard input.
        settings: What the launcher is told first; JSON. It says what is asked of a node.
        lost_after: Seconds of silence after which a node is given up.
        code_version: What the code that tasks need is called; it must be the same on the nodes.
        ssl: Makes the host's context for TLS; None: the connections have none.
    """

    nodes: int
    workers_per_node: int
    command: Sequence[str]
    settings: Mapping[str, object]
    lost_after: float = 15.0
    code_version: str | None = None
    ssl: Callable[[], ssl.SSLContext] | None = None
