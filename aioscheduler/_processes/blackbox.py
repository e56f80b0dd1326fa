"""The record that survives a worker's death: the tasks it has begun, and its last words.

An unnamed file that the host makes and both have open, so it is gone with the last of them. It
begins with a word of 8 bytes for each scheduler: the number of the task begun last, plus one. The
worker stores it before a task's first step (0.05 µs), and the host reads it when the worker is
dead: of the announced tasks, those after it have not begun. A second word for each is for timed
tasks that begin on CONFIRM, as these begin in another order. One more word says whether the process
has become a worker at all, and two say which task has blocked its loop for too long.
Then come the last words: the output of `faulthandler` if the interpreter crashed, the traceback of
an exception out of the event loop, or the stack where the loop was blocked.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import tempfile
import traceback
from contextlib import suppress
from multiprocessing import reduction
from typing import Any

MAX_WORDS = 64 * 1024  # the most bytes of last words that are read


class BlackBox:
    """The file, on either side. It is pickled to hand it to a process that is being spawned.

    Args:
        schedulers: The number of the worker's schedulers.
        fd: The open file, which the box then owns; by default a new one.

    Attributes:
        begun: For each scheduler the number of the task begun last, plus one; then the same for
            timed tasks that begin on CONFIRM.

    Raises:
        OSError: There is no room for the file.
    """

    def __init__(self, schedulers: int, fd: int | None = None) -> None:
        self._schedulers = schedulers
        self._after = 2 * schedulers  # the index of the first word after those
        self._size = -(-(self._after + 3) * 8 // mmap.PAGESIZE) * mmap.PAGESIZE
        if fd is None:
            fd = _unnamed_file()
            os.truncate(fd, self._size)
        self._fd = fd
        self._map = mmap.mmap(fd, self._size)
        self._words = memoryview(self._map).cast("Q")
        self.begun: memoryview[int] = self._words[: self._after]

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_in_child, (self._schedulers, reduction.DupFd(self._fd))

    @property
    def was_opened(self) -> bool:
        """Whether a worker has begun to record; for the host."""
        return bool(self._words[self._after])

    @property
    def blamed(self) -> tuple[int, int] | None:
        """Scheduler and number of the task that blocked its worker, if one did; for the host."""
        scheduler, number = self._words[self._after + 1 : self._after + 3]
        return (scheduler - 1, number) if 0 < scheduler <= self._schedulers else None

    def record(self) -> None:
        """Begin to record, and let `faulthandler` write into the box; called in the worker."""
        self._words[self._after] = 1
        os.lseek(self._fd, self._size, os.SEEK_SET)
        faulthandler.enable(self._fd, all_threads=False)

    def write_failure(self, error: BaseException) -> None:
        """Write the exception that ends this process's loop as last words; called in the worker."""
        with suppress(Exception):  # the exit code still shows that it failed
            text = "".join(traceback.format_exception(error)).encode("utf-8", "replace")
            os.lseek(self._fd, self._size, os.SEEK_SET)
            os.write(self._fd, text[-MAX_WORDS:])

    def blame(self, task: tuple[int, int] | None, cause: str, stack: str) -> None:
        """Write as last words what blocks this process; called in the worker, in any thread.

        Args:
            task: Scheduler and number of the task that blocks it; None if it is not a task.
            cause: What blocks it, in a line.
            stack: Where it is blocked.
        """
        if task is not None:
            self._words[self._after + 2] = task[1]
            self._words[self._after + 1] = task[0] + 1
        line = f"{cause}\n".encode("utf-8", "replace")[:MAX_WORDS]
        text = stack.encode("utf-8", "replace")
        os.pwrite(self._fd, line + text[max(0, len(line) + len(text) - MAX_WORDS) :], self._size)

    def last_words(self) -> str:
        """Return the last words; called in the host."""
        return os.pread(self._fd, MAX_WORDS, self._size).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._fd >= 0:
            self.begun.release()
            self._words.release()
            self._map.close()
            with suppress(OSError):  # a library has closed a descriptor not its own
                os.close(self._fd)
            self._fd = -1


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("aioscheduler")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _open_in_child(schedulers: int, duplicate: Any) -> BlackBox:
    return BlackBox(schedulers, duplicate.detach())
