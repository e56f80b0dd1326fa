"""A function recreated from its code."""

from __future__ import annotations

import pickle

import pytest

from aioscheduler._shipping.sharedcode import EMPTY, SharedCode


def test_shared_code_gives_one_function_and_a_new_one_for_each_closure() -> None:
    space = {"__name__": "somewhere", "BASE": 10}
    shared = SharedCode((lambda n: BASE + n).__code__, space)  # type: ignore[name-defined]  # noqa: F821
    assert shared.function is shared.function
    assert shared.function(1) == 11
    word = "a"
    captured = SharedCode((lambda: word).__code__, space)
    assert captured.function is not captured.function
    assert captured.make(["b"])() == "b"
    with pytest.raises(NameError, match="word"):
        captured.make([EMPTY])()  # it has no value there either


def test_what_its_names_need_is_imported_first() -> None:
    shared = SharedCode((lambda: None).__code__, {}, ["gone_there"])
    with pytest.raises(ModuleNotFoundError, match="gone_there"):
        shared.make([])


def test_the_mark_of_an_empty_cell_is_a_singleton_in_each_process() -> None:
    assert pickle.loads(pickle.dumps(EMPTY)) is EMPTY
