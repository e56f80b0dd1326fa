"""`top` without a terminal: its keys, its signals, and its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from screen import snapshot, worker

from aioscheduler.top import live
from aioscheduler.top.live import Bell, Watch
from aioscheduler.top.sampling import Sample
from aioscheduler.top.table import View


def test_keys() -> None:
    watch = Watch(View())
    for key in "x\x1b[A":
        watch.press(key)
    assert watch.view == View()
    watch.press("l")
    watch.press("r")
    assert watch.view == View("lateness", reverse=True)
    watch.press("c")
    assert watch.view == View("cpu")
    watch.press("e")
    assert watch.view == View("cpu", repeats=True)
    watch.press("e")
    watch.press(" ")
    watch.take(Sample(1.0, [snapshot(worker(0))], {}))
    assert watch.view == View("cpu", paused=True)
    assert not watch.ended
    watch.press("q")
    assert watch.ended


def test_signals_ring_the_bell_and_get_their_handlers_back() -> None:
    bell = live.Bell()
    before = signal.getsignal(signal.SIGWINCH)
    with bell.listening():
        signal.raise_signal(signal.SIGWINCH)
    assert signal.getsignal(signal.SIGWINCH) is before
    assert bell.signals == [signal.SIGWINCH]
    bell.quiet()
    bell.close()
    bell.ring()  # too late, but harmless


class Screen:
    """A fake of rich's live display."""

    def __init__(self) -> None:
        self.console = SimpleNamespace(size=(100, 24))
        self.shown: list[Any] = []

    def update(self, table: Any, refresh: bool) -> None:
        self.shown.append(table)


class Samples:
    """A sampler that returns these samples."""

    def __init__(self, *samples: Sample) -> None:
        self.left = list(samples)

    def get(self) -> Sample | None:
        return self.left.pop(0) if self.left else None


SAMPLE = Sample(1.0, [snapshot(worker(0))], {})


def test_nothing_is_shown_before_the_first_sample() -> None:
    shown, screen = Watch(View()), Screen()
    shown.show(screen)  # type: ignore[arg-type]
    assert screen.shown == []
    shown.take(SAMPLE)
    shown.show(screen)  # type: ignore[arg-type]
    assert len(screen.shown) == 1


def test_a_paused_screen_stands_still() -> None:
    shown = Watch(View(paused=True))
    shown.take(SAMPLE)
    screen = Screen()
    shown.show(screen)  # type: ignore[arg-type]
    assert screen.shown == []
    assert shown.view == View(paused=True)


Terminal = tuple[Bell, int, int]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A bell, and a pipe in place of the terminal."""
    bell = Bell()
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "wb"):
        yield bell, reader, writer
    bell.close()


def follow(terminal: Terminal, samples: Samples, screen: Screen) -> int:
    shown = Watch(View())
    return live._follow(shown, samples, terminal[0], terminal[1], screen)  # type: ignore[arg-type]


def test_the_key_q_ends_it_like_ctrl_c(terminal: Terminal) -> None:
    os.write(terminal[2], b"pq")
    assert follow(terminal, Samples(), Screen()) == signal.SIGINT


def test_a_terminal_that_has_gone_ends_it(terminal: Terminal) -> None:
    os.dup2(terminal[1], terminal[2])  # the last writer is closed
    assert follow(terminal, Samples(), Screen()) == signal.SIGINT


def test_a_signal_ends_it_and_those_behind_it_are_kept(terminal: Terminal) -> None:
    bell = terminal[0]
    bell.signals += [signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM]
    bell.ring()
    assert follow(terminal, Samples(), Screen()) == signal.SIGTSTP
    assert bell.signals == [signal.SIGTERM]


def test_each_sample_is_drawn_once(terminal: Terminal) -> None:
    bell, screen = terminal[0], Screen()

    class TwoRings(Samples):
        def get(self) -> Sample | None:
            sample = super().get()
            if sample is None:  # none is left: the next turn is the last
                bell.signals.append(signal.SIGINT)
                bell.ring()
            return sample

    bell.ring()
    assert follow(terminal, TwoRings(SAMPLE, SAMPLE), screen) == signal.SIGINT
    assert len(screen.shown) == 1  # both had come by then, and the last of them counts
