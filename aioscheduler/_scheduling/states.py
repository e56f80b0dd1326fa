"""The life of a task: its states, and the one table of permitted moves between them.

Code that counts, keeps or shows tasks uses these names. What makes a task move is not here.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """The state of a task. The last five are final.

    Attributes:
        PENDING: It waits to start.
        RUNNING: It has started. It is pending again if it failed and is retried, if its worker
            dies before its first step, or if its worker dies with `on_worker_loss="rerun"`.
        FINISHED: It returned.
        FAILED: It raised an exception.
        CANCELLED: It was cancelled, before or after its start.
        LOST: Its worker died while it ran, or the manager failed; awaiting it raises `WorkerLost`.
        KEPT: It is durable and has not ended: its manager was closed or has failed, and the next
            manager with its store will run it. Awaiting it raises `ManagerClosed`.
    """

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    KEPT = "kept"


MOVES: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.CANCELLED, State.LOST, State.KEPT}),
    State.RUNNING: frozenset(
        {State.PENDING, State.FINISHED, State.FAILED, State.CANCELLED, State.LOST, State.KEPT}
    ),
    State.FINISHED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.LOST: frozenset(),
    State.KEPT: frozenset(),
}
"""From each state, the states that may follow.

PENDING never goes straight to FAILED: a task whose arguments cannot be decoded has been announced
by then. RUNNING goes back to PENDING when an attempt has failed and another follows, and when its
worker has died: the task runs again with `on_worker_loss="rerun"`, or if it was announced and had
not begun.
"""

ENDED = frozenset(state for state, after in MOVES.items() if not after)
"""The final states."""
