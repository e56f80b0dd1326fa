"""Functions whose tasks outlive the host, by the names that the file has of them.

    @durable("remind") ─► registry ◄─ name ─ a row of the file
                              └─ function ─► a coroutine of `schedule`

The name stands in the file: a function may be moved and renamed, and goes on under its old name.
What a task is to do when it fails is the function's, and not the file's, so that a new version of
the program changes it for what waits already (the idea is that of River's and Oban's workers).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, NamedTuple, TypeVar

from .options import Options
from .retry import Retry

F = TypeVar("F", bound=Callable[..., Any])


class Durable(NamedTuple):
    """A function that was registered.

    Attributes:
        name: In the file.
        function: It.
        place: Its `module:qualname`.
        options: Of its tasks, but for their names.
        once: Whether its tasks are not to begin a second time (`on_loss="fail"`).
    """

    name: str
    function: Callable[..., Any]
    place: str
    options: Options
    once: bool
