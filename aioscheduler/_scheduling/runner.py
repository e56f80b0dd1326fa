"""What an engine needs of those who know its entries: a worker, or a link to this loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

E = TypeVar("E")


class Runner(Protocol[E]):
    """Who knows what the entries are."""

    def launch(self, engine: Any, numbers: list[int], dues: list[int]) -> None:
        """Call `engine.run` when the slice has been announced, which may be at once.

        It may be run in parts, one of which lets more be launched (`ends`).
        Entries that are not ready are left out, until `engine.ready` is called for them.
        """

    def execute(
        self, engine: Any, number: int, entry: E, due: int
    ) -> Coroutine[Any, Any, None] | None:
        """Begin an entry that was due at `due`, in its own context; report its end. Never raises.

        Instead of ending it may wait for another attempt: it rests at its queue's head
        (`engine.rest`), or has left the engine and is added again (`engine.add_again`).

        Returns:
            What is left to be run of it in an asyncio task; None if there is nothing.
        """

    def withdrawn(self, engine: Any, number: int, entry: E) -> None:
        """Report the end of an entry that was cancelled before its first step."""

    def broken(self, engine: Any, error: Exception, launched: dict[int, E]) -> None:
        """Take what the engine had launched, and could not begin because of an error of its own."""
