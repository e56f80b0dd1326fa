"""The black box of a worker, with both ends in this process."""

from __future__ import annotations

import faulthandler
import os
import pickle
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from spoiling import close_another, put_another

from aioscheduler._processes.blackbox import MAX_WORDS, BlackBox


class Spawning:
    """A stand-in for a process that multiprocessing starts: it copies the descriptor."""

    class Duplicate:
        def __init__(self, fd: int) -> None:
            self._fd = fd

        def detach(self) -> int:
            return self._fd

    def duplicate_for_child(self, fd: int) -> int:
        return os.dup(fd)

    DupFd = Duplicate


def hand_over(box: BlackBox) -> BlackBox:
    """Hand a box over as to a process that is being spawned, and return what that gets."""
    before = get_spawning_popen()
    set_spawning_popen(Spawning())  # type: ignore[arg-type]  # it has what is asked of it
    try:
        there: BlackBox = pickle.loads(ForkingPickler.dumps(box))
    finally:
        set_spawning_popen(before)
    return there


Ends = tuple[BlackBox, BlackBox]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """The host's end and the worker's; `faulthandler` stays pytest's."""
    monkeypatch.setattr(faulthandler, "enable", lambda fd, all_threads: None)
    with closing(BlackBox(3)) as host, closing(hand_over(host)) as worker:
        yield host, worker


def test_what_a_worker_has_begun_is_seen_at_once(ends: Ends) -> None:
    host, worker = ends
    assert list(host.begun) == [0] * 6
    worker.begun[1] = 7
    worker.begun[2] = (1 << 64) - 1  # provisional numbers are large
    worker.begun[3] = 9  # the first scheduler's, for tasks that begin on CONFIRM
    assert list(host.begun) == [0, 7, (1 << 64) - 1, 9, 0, 0]


def test_a_process_that_became_no_worker_is_known(ends: Ends) -> None:
    host, worker = ends
    assert not host.was_opened
    worker.record()
    assert host.was_opened
    assert list(host.begun) == [0] * 6  # these words did not change


def test_many_schedulers_have_two_words_each() -> None:
    count = 5000  # more than a page of words
    with closing(BlackBox(count)) as host, closing(hand_over(host)) as worker:
        worker.begun[2 * count - 1] = 9
        assert (len(host.begun), host.begun[2 * count - 1]) == (2 * count, 9)
        assert not host.was_opened
        worker.write_failure(ValueError("the end"))
        assert host.last_words() == "ValueError: the end"
        assert not host.was_opened


def test_a_crash_is_written_behind_the_words(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    host, worker = ends
    assert host.last_words() == ""

    def crash(fd: int, all_threads: bool) -> None:
        os.write(fd, b"Fatal Python error: Segmentation fault\n")

    monkeypatch.setattr(faulthandler, "enable", crash)
    worker.record()
    assert host.last_words() == "Fatal Python error: Segmentation fault"
    assert list(host.begun) == [0] * 6


def test_an_exception_that_ends_the_loop_is_kept_with_its_traceback(ends: Ends) -> None:
    def callback() -> None:
        raise SystemExit("on purpose \udc80")

    host, worker = ends
    with pytest.raises(SystemExit) as left:
        callback()
    worker.write_failure(left.value)
    words = host.last_words()
    assert "in callback" in words
    assert words.endswith("SystemExit: on purpose ?")


def test_of_long_last_words_the_end_is_kept(ends: Ends) -> None:
    host, worker = ends
    worker.write_failure(ValueError("x" * MAX_WORDS + "the point"))
    words = host.last_words()
    assert len(words) <= MAX_WORDS
    assert words.endswith("the point")


def test_who_has_blocked_the_worker_is_told_with_the_place(ends: Ends) -> None:
    host, worker = ends
    assert host.blamed is None
    worker.record()
    worker.begun[2] = 6
    worker.blame((2, (1 << 64) - 1), "task x is to blame", "  File y\n")
    assert host.blamed == (2, (1 << 64) - 1)
    assert host.last_words() == "task x is to blame\n  File y"
    assert list(host.begun) == [0, 0, 6, 0, 0, 0]
    assert host.was_opened


def test_a_block_may_be_by_no_task(ends: Ends) -> None:
    host, worker = ends
    worker.blame(None, "a callback", "")
    assert host.blamed is None
    assert host.last_words() == "a callback"


def test_an_invalid_scheduler_blames_no_task(ends: Ends) -> None:
    host, worker = ends
    for word in (4, 1 << 63):
        worker._words[7] = word
        assert host.blamed is None
    worker._words[7] = 3
    assert host.blamed == (2, 0)


def test_of_a_deep_stack_the_first_line_and_the_end_are_kept(ends: Ends) -> None:
    host, worker = ends
    worker.blame((0, 0), "who it was \udc80", "x" * MAX_WORDS + "the point")
    words = host.last_words()
    assert len(words) == MAX_WORDS
    assert words.startswith("who it was ?\nxxx")
    assert words.endswith("the point")


def test_an_exception_that_cannot_be_formatted_does_no_harm(ends: Ends) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise MemoryError

    host, worker = ends
    worker.write_failure(Silent())
    worker.close()
    worker.write_failure(ValueError("too late"))
    assert "too late" not in host.last_words()


def test_a_box_is_closed_once_whatever_became_of_its_file() -> None:
    box = BlackBox(1)
    box.close()
    box.close()
    for how in ("closed", "replaced"):
        box = BlackBox(1)
        fd: int = box._fd
        os.close(fd)
        if how == "replaced":
            put_another(fd)
        box.close()
        close_another(fd)


def test_it_cannot_be_had_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError("no room")

    monkeypatch.setattr(os, "memfd_create", full, raising=False)
    with pytest.raises(OSError, match="no room"):
        BlackBox(1)


def test_systems_without_memory_files_have_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with closing(BlackBox(2)) as host, closing(hand_over(host)) as worker:
        worker.begun[0] = 4
        worker.write_failure(ValueError("told"))
        assert (host.begun[0], host.last_words()) == (4, "ValueError: told")
