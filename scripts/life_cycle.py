"""Print the states of a task and the next states of each, as the README shows them."""

from __future__ import annotations

from aioscheduler.task import MOVES, State


def draw() -> str:
    """Return a line for each state that is not an end."""
    return "\n".join(
        f"{state.value:<8}→ " + ", ".join(s.value for s in State if s in after)
        for state, after in MOVES.items()
        if after
    )


if __name__ == "__main__":
    print(draw())
