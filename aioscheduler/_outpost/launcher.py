"""The host's side of the launcher process, which starts outposts and reports their ends.

    host ── lines of JSON ──► launcher process ── the engine's own way ──► outposts on nodes
         ◄── lines of JSON ──

    to it:    {"settings": {...}}, and then  {"start": n, "secret": hex}   {"end": n}
    from it:  {"up": true} or {"refused": text}, and then
              {"started": n, "host": ip, "port": p, "node": name}   {"lost": n, "text": cause}
              {"waits": n, "text": what is asked, and what there is}

It is a separate process because an engine's driver may end its process, block its loop, or bring
threads and signal handlers, none of which may affect the host. Rules of this file:

1. It ends with the host, by the end of its standard input.
2. Outposts outlive it. Those requested and not yet started are requested from the next launcher,
   under another number; if the former has started one all the same, that ends by itself, as no host
   comes.
3. The failure of the first launcher, to run or to reach its cluster, is reported; later ones are
   tried for ever, with growing delays, and the log mentions it ever less often.
4. A launcher that writes anything but the above is killed and replaced.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from .._processes.reports import is_said

log: logging.Logger = logging.getLogger("aioscheduler")

REAP_TIME = 3.0  # seconds from a kill until it is given up
UP_TIME = 60.0  # seconds that it may take to say whether it is up
END_TIME = 12.0  # seconds that it may take to end: it withdraws pending requests
BLOCK_TIME = 1.0  # seconds of that to wait for without a loop
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds until it is restarted
LONGEST_LINE = 1 << 20
_LOOK_EVERY = 0.01


class Asker(Protocol):
    """One that needs an outpost (`connection.Connection`)."""

    @property
    def secret(self) -> bytes:
        """The outpost's secret."""

    def started(self, host: str, port: int, node: str) -> None:
        """The outpost listens there."""

    def reported_lost(self, cause: str) -> None:
        """The outpost is dead, or could not be started."""


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Return when a process has ended, by polling: the loop may be of another thread."""
    while process.poll() is None:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY)


class Launcher:
    """The launcher process, which is replaced if it ends.

    Args:
        command: Its command line.
        settings: The settings sent to it first.
        refused: Called with the reason if the first process cannot reach its cluster.
    """

    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, object],
        refused: Callable[[str], None],
    ) -> None:
        self._command = list(command)
        self._settings = dict(settings)
        self._refused = refused
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = 0
        self._asked: dict[int, Asker] = {}
        self._started: dict[int, Asker] = {}
        self._read = bytearray()
        self._up_once = self._is_up = self._closing = False
        self._failures = 0  # in a row
        self._why = ""  # the reason why it is not up
        self._timer: asyncio.TimerHandle | None = None  # the next start, or the limit of this one
        self._killed: set[subprocess.Popen[bytes]] = set()  # and not reaped yet

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the process, unless that has been done.

        Raises:
            OSError: It cannot be started.
        """
        if self._loop is None:
            self._run(loop)
            self._loop = loop

    def ask(self, asker: Asker) -> None:
        """Request an outpost."""
        self._numbers += 1
        self._asked[self._numbers] = asker
        self._send({"start": self._numbers, "secret": asker.secret.hex()})

    def end(self, asker: Asker) -> None:
        """End an outpost, or withdraw the request for it."""
        for outposts in (self._asked, self._started):
            for number, other in list(outposts.items()):
                if other is asker:
                    del outposts[number]
                    self._send({"end": number})

    async def close(self) -> None:
        """End the process, and return when it has ended. May be called again when cancelled."""
        self._closing = True
        self._stop_timer()
        process = self._process
        if process is not None:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
            try:
                async with asyncio.timeout(END_TIME):
                    await _end_of(process)
            except TimeoutError:
                log.warning("the launcher has not ended in %.0f s, and is killed", END_TIME)
                process.kill()
                self._killed.add(process)
            self._forget_process()
        with suppress(TimeoutError):  # one hangs in the kernel, or a debugger holds it
            async with asyncio.timeout(REAP_TIME):
                for former in list(self._killed):
                    await _end_of(former)

    def abandon(self) -> None:
        """End the process without the loop, which is closed, by the end of its input.

        This blocks for up to `BLOCK_TIME`; a launcher that withdraws pending requests may outlive
        that, and is left alone.
        """
        self._closing = True
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    if stream is not None:
                        stream.close()
            self._killed.add(process)
        deadline = time.monotonic() + BLOCK_TIME
        while any(each.poll() is None for each in self._killed) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY)
        self._killed.clear()

    # ---- the process

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process = process = subprocess.Popen(  # noqa: S603  the engine's own
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C in a terminal is the host's to answer
        )
        _open.add(self)
        assert process.stdin is not None
        assert process.stdout is not None
        for stream in (process.stdin, process.stdout):
            os.set_blocking(stream.fileno(), False)
        self._is_up = False
        self._why = ""
        self._read.clear()
        loop.add_reader(process.stdout.fileno(), self._readable)
        self._timer = loop.call_later(
            UP_TIME, self._give_up, f"it has not said in {UP_TIME:.0f} s whether it is up"
        )
        self._send({"settings": self._settings})
        asked, self._asked = self._asked, {}
        for asker in asked.values():
            self.ask(asker)

    def _send(self, line: dict[str, Any]) -> None:
        """Send a line; a launcher whose pipe is full does not read, and is killed."""
        process = self._process
        if process is None or process.stdin is None or process.stdin.closed:
            return
        data = json.dumps(line).encode() + b"\n"
        try:
            if os.write(process.stdin.fileno(), data) == len(data):
                return
        except BlockingIOError:
            pass
        except OSError:  # it has ended, as the end of its output will show
            return
        self._give_up("it does not read its input")

    def _give_up(self, why: str) -> None:
        self._why = self._why or why
        if self._process is not None:
            self._process.kill()

    def _readable(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._has_ended()
            return
        self._read += data
        *lines, rest = bytes(self._read).split(b"\n")
        self._read[:] = rest
        if len(rest) > LONGEST_LINE:
            self._give_up("it writes a line without an end")
        for line in lines:
            if self._why or self._closing:  # it is killed: the next launcher gets the requests
                return
            try:
                self._take(json.loads(line))
            except Exception as error:  # noqa: BLE001  it may have written anything
                self._give_up(f"it writes {line[:80]!r}, which cannot be handled: {error!r}")

    def _take(self, line: dict[str, Any]) -> None:
        """Handle a line.

        Raises:
            Exception: It is none of those at the top of this file.
        """
        if "up" in line:
            self._stop_timer()
            self._up_once = self._is_up = True
            if self._failures > 1:
                log.warning("the launcher is up again, after %d failures", self._failures)
            self._failures = 0
        elif "refused" in line:
            self._give_up(str(line["refused"]))
        elif "started" in line:
            where = str(line["host"]), int(line["port"]), str(line["node"])
            asker = self._asked.pop(int(line["started"]), None)
            if asker is not None:
                self._started[int(line["started"])] = asker
                asker.started(*where)
        elif "lost" in line:
            number = int(line["lost"])
            asker = self._asked.pop(number, None) or self._started.pop(number, None)
            if asker is not None:
                asker.reported_lost(str(line["text"]))
        elif "waits" in line:
            if int(line["waits"]) in self._asked:
                log.warning("workers wait for a node: %s", line["text"])
        else:
            raise ValueError("there is no such line")

    def _has_ended(self) -> None:
        """Start the next one later, or report the failure if none has been up yet."""
        assert self._loop is not None
        process = self._process
        assert process is not None
        self._forget_process()
        if process.poll() is None:
            process.kill()
            self._killed.add(process)
            self._reap(process)
        if self._closing:
            return
        why = self._why or f"it has ended (status {process.returncode}); its output above says why"
        if not self._up_once:
            self._closing = True
            self._refused(why)
            return
        self._failures += 1
        delay = min(FIRST_DELAY * 2 ** min(self._failures - 1, 10), LONGEST_DELAY)
        if is_said(self._failures):
            log.warning(
                "the launcher is gone, which starts workers on other machines, and is restarted in "
                "%.1f s; workers that run there go on: %s",
                *(delay, why),
            )
        self._timer = self._loop.call_later(delay, self._run_again)

    def _run_again(self) -> None:
        assert self._loop is not None
        try:
            self._run(self._loop)
        except OSError as error:
            self._failures += 1
            if is_said(self._failures):
                log.error("the launcher cannot be started, and is tried again: %s", error)
            self._timer = self._loop.call_later(LONGEST_DELAY, self._run_again)

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        assert self._loop is not None
        if process.poll() is None:
            self._loop.call_later(_LOOK_EVERY, self._reap, process)
        else:
            self._killed.discard(process)

    def _forget_process(self) -> None:
        """Close the pipes to the process, and drop it."""
        process, self._process = self._process, None
        self._stop_timer()
        if process is None:
            return
        _open.discard(self)
        if process.stdout is not None and self._loop is not None:
            self._loop.remove_reader(process.stdout.fileno())
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def let_go(self) -> None:
        """Close the pipes in a forked child, which must not keep the launcher alive."""
        for stream in () if self._process is None else (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()


_open: weakref.WeakSet[Launcher] = weakref.WeakSet()


def _let_go_of_all() -> None:
    for launcher in list(_open):
        launcher.let_go()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go_of_all)
