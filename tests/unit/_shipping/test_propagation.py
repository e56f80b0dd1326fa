"""Values are captured in one context and restored in another; bad items are refused."""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar, copy_context
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from aioscheduler._shipping.propagation import Propagation, read_context
from aioscheduler.errors import NotShippable

first: ContextVar[object] = ContextVar("first")
second: ContextVar[object] = ContextVar("second", default="by default")
third: ContextVar[object] = ContextVar("another name")
seen: list[object] = []


def restore(value: object) -> None:
    seen.append(value)


PAIR = (lambda: len(seen), restore)


def test_what_is_captured_here_is_restored_there() -> None:
    seen.clear()
    propagation = Propagation((first, second, PAIR, third))

    def here() -> Any:
        first.set("one")
        third.set(None)
        return propagation.capture()

    def there(captured: Any) -> list[object]:
        second.set("its own")
        propagation.restore(captured)
        return [first.get(), second.get(), third.get()]

    captured = Context().run(here)
    assert captured == [0b1101, "one", 0, None]
    assert Context().run(there, captured) == ["one", "its own", None]
    assert seen == [0]
    assert first not in copy_context()


def test_what_has_no_value_is_left_alone() -> None:
    propagation = Propagation((first, second))
    assert Context().run(propagation.capture) == [0]

    def there() -> object:
        second.set("its own")
        propagation.restore([0])
        return first.get("nothing"), second.get()

    assert Context().run(there) == ("nothing", "its own")


@pytest.mark.parametrize(
    "captured",
    [
        [0b11, "one"],
        [0b11, "one", "two", "three"],
        [0b01],
        [0b10, "one", "two"],
        [0b101, "one", "three"],
        [0b100, "three"],
        [0b111, "one", "two", "three"],
        [0, "one"],
        [-1, "one", "two"],
    ],
)
def test_what_was_captured_for_other_items_is_not_restored(captured: list[Any]) -> None:
    propagation = Propagation((first, second))

    def there() -> object:
        with pytest.raises(ValueError, match="are not those of the 2 items that Manager"):
            propagation.restore(captured)
        return first.get("nothing"), second.get()

    assert Context().run(there) == ("nothing", "by default")


def test_who_keeps_what_was_captured_can_pair_it_with_its_items() -> None:
    propagation = Propagation((first, PAIR, third))
    assert list(propagation.pairs([0b110, 5, "3"])) == [(PAIR, 5), (third, "3")]
    assert list(propagation.pairs([0b111, "1", 5, "3"])) == [(first, "1"), (PAIR, 5), (third, "3")]
    assert list(propagation.pairs([0])) == []


def test_more_items_than_bits_of_a_word_are_allowed() -> None:
    propagation = Propagation([(partial(int, n), seen.append) for n in range(100)])
    seen.clear()
    propagation.restore(propagation.capture())
    assert seen == list(range(100))


class Bare(Exception):
    """An exception that refuses notes."""

    __notes__ = 5  # type: ignore[assignment]


@pytest.mark.parametrize("error", [LookupError("no user"), KeyboardInterrupt(), Bare()])
def test_an_exception_of_a_pair_has_a_note_of_its_purpose(
    error: BaseException,
) -> None:
    def fail(*args: object) -> None:
        raise error

    propagation = Propagation((PAIR, (fail, fail)))
    for call, what_for in (
        (propagation.capture, "to capture what goes with a task"),
        (lambda: propagation.restore([2, 1]), "to restore what came with the task"),
    ):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error
        if not isinstance(error, Bare):
            assert what_for in error.__notes__.pop()


def test_messages_name_items_and_values() -> None:
    propagation = Propagation((first, (dict, print), third))
    variables, functions = propagation.parts().values()
    assert variables == {"first": first, "another name": third}
    assert list(functions.values()) == [dict, print]
    of_variables, of_pairs = propagation.named([0b110, "captured", "3"]).values()
    assert of_variables == {"another name": "3"}
    assert of_pairs == {"builtins:dict()": "captured"}


def test_items_are_read() -> None:
    assert read_context(()) is None
    assert read_context([first, third, PAIR]) is not None


async def wait() -> None:
    """Not allowed in a pair."""


@pytest.mark.parametrize(
    ("context", "why"),
    [
        (5, "context is a list of context variables, and of pairs"),
        ("user", "a list, not 'user'"),
        (first, r"write \[first\], not <ContextVar name='first'"),
        (PAIR, r"write \[\(capture, restore\)\]"),
        (["user"], "lists context variables, and tuples of two functions, .*, not 'user'"),
        ([print], "tuples of two functions"),
        ([(print,)], "tuples of two functions"),
        ([(print, None)], "tuples of two functions"),
        ([(wait, print)], "must not be async"),
        ([(print, wait)], "must not be async"),
    ],
)
def test_what_cannot_be_listed_is_refused(context: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        read_context(context)


def test_a_variable_that_no_worker_would_find_is_refused_with_what_to_do() -> None:
    local: ContextVar[int] = ContextVar("local")  # noqa: B039
    with pytest.raises(NotShippable, match="'local' is not, .* make it one, or list a pair"):
        read_context([local])


def test_a_variable_of_a_script_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("__main__")
    script.user = ContextVar("user")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", script)
    old = script.user
    assert read_context([old]) is not None
    script.user = ContextVar("user")  # type: ignore[attr-defined]
    assert read_context([script.user]) is not None
    with pytest.raises(NotShippable, match="'user' is not, or no longer, a global of a module"):
        read_context([old])
