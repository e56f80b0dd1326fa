"""Exceptions are taken apart and recreated without calling their own code."""

from __future__ import annotations

from typing import Any

import faulty
import pytest

from aioscheduler._shipping.failures import (
    _members,
    describe,
    reduce_error,
    set_cause,
    text_of,
)


def content(error: BaseException) -> Any:
    """Return everything that an exception holds, whatever its class defines."""
    attributes = dict(object.__getattribute__(error, "__dict__"))
    for name, member in _members(type(error)).items():
        try:
            attributes[name] = member.__get__(error)
        except AttributeError:
            attributes[name] = "unset"
    attributes |= {"args": vars(BaseException)["args"].__get__(error)}
    return type(error), {name: plain(value) for name, value in attributes.items()}


def plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return content(value)
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def copy(error: BaseException) -> BaseException:
    make, args, state, _, _, set_state = reduce_error(error)
    made: BaseException = make(*args)
    set_state(made, state)
    return made


@pytest.mark.parametrize("error", faulty.GOOD, ids=lambda error: type(error).__name__)
def test_a_copy_has_all_that_the_original_has(error: BaseException) -> None:
    if type(error) is not faulty.Reduced:
        assert content(copy(error)) == content(error)


def test_classes_with_their_own_pickling_are_left_to_it() -> None:
    for error in (faulty.Reduced(1, "x"), faulty.Stateful(), faulty.NoPickle()):
        assert reduce_error(error) is NotImplemented


def test_nothing_that_describes_an_exception_fails() -> None:
    for error in (*faulty.GOOD, *faulty.LESS, *faulty.NOT):
        try:
            raise error
        except BaseException as caught:
            assert "test_nothing_that_describes" in text_of(caught)
        assert isinstance(describe(repr, error), str)
    assert "whose repr raises SystemExit" in describe(repr, faulty.NoStr())
    assert len(describe(str, "x" * 5000)) == 1000


def test_a_text_of_an_odd_class_is_described_by_what_it_is() -> None:
    class Odd(str):
        def __str__(self) -> str:
            return self

        def __getitem__(self, index: object) -> Any:
            return [index]

    assert describe(str, Odd("its text")) == "its text"


def test_a_cause_is_set_on_any_class() -> None:
    for error in (faulty.NoSetattr(), faulty.Frozen(1)):
        set_cause(error, KeyError())
        assert isinstance(error.__cause__, KeyError)
        assert error.__suppress_context__
