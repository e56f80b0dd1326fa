"""The interface of an engine to its runner: a worker's, or that of a link to this loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

E = TypeVar("E")


class Runner(Protocol[E]):
    """Runs the entries of an engine, which are opaque to the engine itself."""

    def launch(self, engine: Any, numbers: list[int], dues: list[int]) -> None:
        """Call `engine.run` when the slice has been announced, which may be at once.

        It may be run in parts, one of which ends the launch (`ends`) and permits the next.
        Entries that are not ready are left out, until `engine.ready` is called for them.
        """

    def execute(
        self, engine: Any, number: int, entry: E, due: int
    ) -> Coroutine[Any, Any, None] | None:
        """Begin an entry that was due at `due`, in its own context; report its end. Never raise.

        Instead of ending, an entry may wait for another attempt: it rests at its queue's head
        (`engine.rest`), or leaves the engine and is added again (`engine.add_again`).

        Returns:
            The rest of the entry, to be run in an asyncio task; None if it has ended.
        """

    def withdrawn(self, engine: Any, number: int, entry: E) -> None:
        """Report the end of an entry that was cancelled before its first step."""

    def broken(self, engine: Any, error: Exception, launched: dict[int, E]) -> None:
        """Accept launched entries that the engine could not begin because of an internal error."""
