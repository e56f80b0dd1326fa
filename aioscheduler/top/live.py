"""`top` on a terminal: draws each sample, reads keys, and restores the terminal at the end.

sampler, a thread ─┐                ┌─► rates ─► draw
signals ───────────┴─► bell ─┐      │     ▲
                             select ┼─► view
keys ────────────────────────┘      └─► the end
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType

from rich.console import Console
from rich.live import Live

from .rates import Rates
from .sampling import Sample, Sampler
from .table import KEYS, View, draw

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
SORT_KEYS = {words[0]: sort for words, sort in KEYS if sort}


class Bell:
    """Wakes up a select: threads call `ring`, and signals ring it and are recorded."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.reader: int
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)

    def ring(self) -> None:
        """Ring; may be called from any thread, even after `close`."""
        with contextlib.suppress(OSError):  # full: it will ring anyway; closed: nobody listens
            os.write(self._writer, b"\0")

    def quiet(self) -> None:
        """Stop ringing."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.reader, 4096):
                pass

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.reader)
        writer, self._writer = self._writer, -1
        os.close(writer)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Let signals ring, in place of their handlers."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signals.append(number)
        self.ring()


class Watch:
    """The state of the screen, and how keys change it."""

    def __init__(self, view: View) -> None:
        self.view: View = view
        self.ended: bool = False
        self._rates = Rates()
        self._sample: Sample | None = None

    def take(self, sample: Sample) -> None:
        """Accept a sample to show, unless paused."""
        if self.view.paused:
            return
        self._sample = sample
        self._rates.add(sample.at, sample.snapshots)
        self.view = replace(self.view, clock=time.strftime("%H:%M:%S"))

    def press(self, key: str) -> None:
        """Apply a key."""
        view = self.view
        if key == "q":
            self.ended = True
        elif key == "r":
            self.view = replace(view, reverse=not view.reverse)
        elif key == "e":
            self.view = replace(view, repeats=not view.repeats)
        elif key == " ":
            self.view = replace(view, paused=not view.paused)
        elif key in SORT_KEYS:
            self.view = replace(view, sort=SORT_KEYS[key], reverse=False)

    def show(self, live: Live) -> None:
        """Draw the latest sample; nothing before the first one."""
        if self._sample is not None:
            _, snapshots, programs = self._sample
            width, height = live.console.size
            shown = draw(snapshots, self._rates, self.view, width, height, programs)
            live.update(shown, refresh=True)


def watch(interval: float, sort: str) -> None:
    """Show the managers until q or Ctrl-C is pressed, or SIGTERM comes.

    Args:
        interval: Seconds from one sample to the next.
        sort: The order of workers, a key of `SORTS`.
    """
    bell = Bell()
    sampler = Sampler(interval, bell.ring)
    shown = Watch(View(sort))
    stdin = sys.stdin.fileno()
    as_it_was = termios.tcgetattr(stdin)
    end = 0
    with bell.listening():
        sampler.start()
        while not end:
            try:
                # Keys come at once and without echo, Ctrl-C stays a signal, and no key is lost.
                tty.setcbreak(stdin, termios.TCSADRAIN)
                with Live(console=Console(), screen=True, auto_refresh=False) as live:
                    end = _follow(shown, sampler, bell, stdin, live)
            finally:
                termios.tcsetattr(stdin, termios.TCSADRAIN, as_it_was)
            if end == signal.SIGTSTP:
                # The terminal is the shell's now; once it is ours again, everything is redrawn.
                os.kill(os.getpid(), signal.SIGSTOP)
                # SIGCONT has done its work; a SIGTERM that came meanwhile has not.
                bell.signals = [number for number in bell.signals if number != signal.SIGCONT]
            if end in (signal.SIGTSTP, signal.SIGCONT):
                end = 0
        sampler.stop()
    bell.close()
    if end == signal.SIGTERM:
        signal.raise_signal(end)  # so that the exit status shows it to the sender


def _follow(shown: Watch, sampler: Sampler, bell: Bell, stdin: int, live: Live) -> int:
    """Draw until a signal must be obeyed, and return it; the key q counts as Ctrl-C."""
    while True:
        shown.show(live)
        ready, _, _ = select.select([stdin, bell.reader], [], [])
        bell.quiet()
        while bell.signals:
            number = bell.signals.pop(0)
            if number != signal.SIGWINCH:  # it only causes a redraw in the new size
                return number
        if stdin in ready:
            keys = os.read(stdin, 1024)
            for key in keys.decode(errors="ignore"):
                shown.press(key)
            if shown.ended or not keys:  # no keys: the terminal is gone
                return signal.SIGINT
        while (sample := sampler.get()) is not None:
            shown.take(sample)
