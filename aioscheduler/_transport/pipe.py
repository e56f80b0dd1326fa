"""Frames over a pair of pipes, without blocking. The same class serves at both ends.

Data is written at once if the pipe has room; the rest waits here, in order, until the loop reports
that there is room. Payloads that were left out of their frames (blobs) go in chunks, in turn, and
only when no frame waits: a small frame never waits for more of a large payload than the pipe
itself holds.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress

from . import wire

READ_SIZE = 256 * 1024
WRITE_SIZE = 256 * 1024
PIPE_SIZE = 1 << 20  # bytes that a pipe should hold; the default is 64 KiB

HIGH_WATER = 4 << 20
"""Bytes waiting to be written above which `flush()` waits."""

Receive = Callable[[wire.Frame], None]
Closed = Callable[["Exception | None"], None]
MakePipe = Callable[[Receive, Closed], "Pipe"]


class Pipe:
    """One end of the connection between the host and a worker.

    Args:
        receive: Called with each frame; blobs arrive whole, as one BLOB frame.
        closed: Called once when no more frames will come or can be written: with None at the end
            of the stream, otherwise with what `receive` or a callback of `send` raised, or with
            the error in the bytes or the descriptors.
    """

    def __init__(self, receive: Receive, closed: Closed) -> None:
        self.waiting: int = 0  # bytes that were passed to `send` and not yet written
        self._receive = receive
        self._closed = closed
        self._loop: asyncio.AbstractEventLoop | None = None
        self.descriptors: list[int] = [-1, -1]  # reader, writer; -1: not open
        self._files: list[tuple[int, int]] = []  # of the descriptors, when they were opened
        self._has_ended = False
        self._decoder = wire.Decoder()
        self._parts: dict[int, bytearray | None] = {}  # of blobs; None: no memory for it
        self._frames: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._blobs: OrderedDict[int, _Blob] = OrderedDict()  # by number, the next one first
        self._rest = memoryview(b"")  # of the current write
        self._written: list[Callable[[], None]] = []  # callbacks for when _rest is written
        self._waits_for_room = False
        self._drainers: list[tuple[int, asyncio.Future[None]]] = []

    def open(self, loop: asyncio.AbstractEventLoop, reader: int, writer: int) -> None:
        """Begin to read and write two file descriptors, which the pipe owns from now on."""
        self._loop, self.descriptors[:] = loop, (reader, writer)
        for fd in (reader, writer):
            os.set_blocking(fd, False)
        self._files = [file_of(fd) for fd in (reader, writer)]
        enlarge(writer)
        _open_pipes.add(self)
        loop.add_reader(reader, self._readable)
        self.flush()

    def send(self, frame: bytes, written: Callable[[], None] | None = None) -> None:
        """Queue an encoded frame; `written` is called when the other side will certainly get it."""
        self._frames.append((frame, written))
        self.waiting += len(frame)

    def send_blob(self, number: int, payload: bytes, then: bytes | None = None) -> None:
        """Queue a payload, in chunks, and the encoded frame that follows it.

        It replaces a payload of the same number that is still being sent, for a task that is sent
        again: the reader would merge the two.
        """
        if (former := self._blobs.pop(number, None)) is not None:
            self.waiting -= len(former)
        self._blobs[number] = _Blob(number, payload, then)
        self.waiting += len(payload)

    def flush(self) -> None:
        """Write as much as the pipe has room for."""
        if self.descriptors[1] < 0 or self._waits_for_room:
            return
        self.check()  # so that nothing is written to a file that is not ours
        while self.descriptors[1] >= 0 and (self._rest or self._next()):
            try:
                count = self._write(self._rest)
            except BlockingIOError:
                self._wait_for_room(True)
                return
            except OSError:  # the reader is gone, or the descriptor is not ours
                self._drop()
                self._notify_end(None)
                return
            self.waiting -= count
            self._wake_drainers()
            self._rest = self._rest[count:]
            if not self._rest and self._written:
                callbacks, self._written = self._written, []
                try:
                    for written in callbacks:
                        written()
                except Exception as error:  # noqa: BLE001  tasks that should begin now never will
                    self._end(error)
                    return

    async def drain(self, level: int = 0) -> None:
        """Wait until at most `level` bytes wait to be written, or the reader is gone."""
        if self.waiting > level and self._loop is not None:
            drained: asyncio.Future[None] = self._loop.create_future()
            self._drainers.append((level, drained))
            await drained

    def read_rest(self) -> None:
        """Read what the pipe holds, but not up to its end: another process may keep it open."""
        while self.descriptors[0] >= 0 and self._readable():
            pass

    def check(self) -> None:
        """End the pipe if other code of this process has closed or replaced a descriptor of it.

        No event reports that. It costs a microsecond, and must be called once a tick.
        """
        for index, fd in enumerate(self.descriptors):
            if fd >= 0 and self._files and file_of(fd) != self._files[index]:
                if index == 0 and self._loop is not None:
                    self._loop.remove_reader(fd)
                self.descriptors[index] = -1  # no longer ours: neither used nor closed
                self._end(OSError(f"descriptor {fd} was closed or replaced by other code"))

    def close(self) -> None:
        """Close both descriptors; no callback is called any more."""
        self._has_ended = True
        self._stop_reading()
        self._wait_for_room(False)
        self._drop()
        _open_pipes.discard(self)
        abandon(self.descriptors)

    # `paired`, which has no descriptors, overrides these, `open`, `close` and `_stop_reading`.

    def _write(self, data: memoryview) -> int:
        return os.write(self.descriptors[1], data)

    def _read(self) -> bytes:
        return os.read(self.descriptors[0], READ_SIZE)

    def _next(self) -> bool:
        """Fetch the next bytes to write: many frames, or one chunk of a blob."""
        size, taken = 0, []
        while self._frames and size < WRITE_SIZE:
            frame, written = self._frames.popleft()
            taken.append(frame)
            size += len(frame)
            if written is not None:
                self._written.append(written)
        if not taken and self._blobs:
            number, blob = self._blobs.popitem(last=False)
            before = len(blob)
            chunk = blob.next_chunk()
            self.waiting += len(chunk) - (before - len(blob))
            taken.append(chunk)
            if blob:
                self._blobs[number] = blob
            elif blob.then is not None:
                self.send(blob.then)
        self._rest = memoryview(b"".join(taken))
        return bool(taken)

    def _wait_for_room(self, wait: bool) -> None:
        if self._loop is not None and wait is not self._waits_for_room:
            self._waits_for_room = wait
            if wait:
                self._loop.add_writer(self.descriptors[1], self._writable)
            else:
                self._loop.remove_writer(self.descriptors[1])

    def _writable(self) -> None:
        self._wait_for_room(False)
        self.flush()

    def _readable(self) -> bool:
        """Read once; return False if there was nothing to read."""
        try:
            data = self._read()
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._end(None)
            return False
        return self._take_bytes(data)

    def _take_bytes(self, data: bytes) -> bool:
        """Decode bytes and pass on their frames; return False if no more can be read."""
        try:
            for frame in self._decoder.feed(data):
                try:
                    if frame[0] == wire.Kind.BLOB:
                        self._collect(*frame)
                    else:
                        self._receive(frame)
                except Exception as error:  # noqa: BLE001  whatever it is
                    # The end is reported, but the rest is read: it says which tasks have begun.
                    self._notify_end(error)
        except wire.WireError as error:  # where the next frame begins is unknown
            self._end(error)
            return False
        return True

    def _collect(self, kind: int, number: int, part: bytes, left: int) -> None:
        """Assemble a blob; one for which there is no memory arrives as None."""
        if number not in self._parts:
            self._parts[number] = None
            with suppress(MemoryError):
                self._parts[number] = bytearray(len(part) + left)
        whole, payload = self._parts[number], None
        if whole is not None:
            start = len(whole) - left - len(part)
            whole[start : start + len(part)] = part
        if not left:
            del self._parts[number]
            if whole is not None:
                with suppress(MemoryError):
                    payload = bytes(whole)
            del whole
            self._receive([kind, number, payload])

    def _end(self, error: Exception | None) -> None:
        self._stop_reading()
        self._notify_end(error)

    def _notify_end(self, error: Exception | None) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._closed(error)

    def _stop_reading(self) -> None:
        reader = self.descriptors[0]
        if self._loop is not None and reader >= 0:
            self._loop.remove_reader(reader)
            os.close(reader)
            self.descriptors[0] = -1

    def _drop(self) -> None:
        """Drop everything that waits to be written."""
        self._frames.clear()
        self._blobs.clear()
        self._written.clear()
        self._rest, self.waiting = memoryview(b""), 0
        self._wake_drainers()

    def _wake_drainers(self) -> None:
        for level, drained in self._drainers:
            if self.waiting <= level and not drained.done():
                drained.set_result(None)
        if self._drainers:
            self._drainers = [entry for entry in self._drainers if not entry[1].done()]


class _Blob:
    """A payload that is being sent."""

    def __init__(self, number: int, payload: bytes, then: bytes | None) -> None:
        self.then = then
        self._number = number
        self._rest = memoryview(payload)

    def __len__(self) -> int:
        return len(self._rest)

    def next_chunk(self) -> bytes:
        part, self._rest = self._rest[: wire.CHUNK], self._rest[wire.CHUNK :]
        return wire.encode([wire.Kind.BLOB, self._number, bytes(part), len(self._rest)])


def abandon(descriptors: list[int]) -> None:
    """Close a pipe's descriptors without notifying the loop, which may be gone."""
    for index, fd in enumerate(descriptors):
        if fd >= 0:
            descriptors[index] = -1
            os.close(fd)


def file_of(fd: int) -> tuple[int, int]:
    """Return the device and inode of a descriptor; (-1, -1) if it is not open."""
    try:
        found = os.fstat(fd)
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def enlarge(fd: int) -> None:
    """Enlarge a pipe where the kernel can; the default size holds few frames."""
    try:
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (ImportError, AttributeError, OSError):
        return


# A forked child of the host must neither write to the workers nor keep the pipes open.
_open_pipes: weakref.WeakSet[Pipe] = weakref.WeakSet()


def _abandon_all() -> None:
    for pipe in list(_open_pipes):
        abandon(pipe.descriptors)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
