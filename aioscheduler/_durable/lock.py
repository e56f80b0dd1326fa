"""One host at a time: the lock file beside a store, and whether it is still ours.

    host ── flock ── PATH.lock ◄── handed over ── worker … worker

1. The lock is never released explicitly: it goes with its last descriptor. Workers hold one, so
   it is free when the last process that may still run tasks has ended.
2. A process forked from one of ours holds none.
3. The host that takes the lock writes its process id, boot id and a random epoch into the file. By
   the file at the path and its contents we see whether another host has made its own lock file.
4. The file's modification time is when its host was last known to be alive.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from ..errors import StoreError, StoreLocked
from .faults import locked
from .records import StoreGone

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PAUSE = 0.05  # seconds between two attempts to take the lock
_MOST = 256  # bytes of a lock file that are read
_REMOTE = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "fuse.sshfs"))

_held: set[int] = set()
"""The descriptors by which this process holds locks."""


def _let_go() -> None:
    """Close the locks in a forked child, which must not keep another host waiting."""
    for fd in _held:
        with suppress(OSError):  # a library has closed it
            os.close(fd)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class Lock:
    """The lock file of a store, in its host.

    Args:
        path: The store's path, absolute and without links.

    Attributes:
        heartbeat: When the last host was last known to be alive, in nanoseconds since the epoch; 0
            if there was none. Set, like `had_host`, when the lock is taken.
        had_host: Whether there was an earlier host.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = f"{path}.lock"
        self._fd = -1
        self._opened: os.stat_result | None = None  # the file of that descriptor
        self._made = False  # whether this host has made the file
        self._before = b""
        self._text = b""
        self.heartbeat: int = 0
        self.had_host: bool = False

    def take(self, wait: float, sign: bool = True) -> None:
        """Take the lock, and sign its file.

        Args:
            wait: Seconds to wait for another host to release it.
            sign: Whether to sign it. A reader does not, and releases it by `abandon`.

        Raises:
            StoreLocked: Another host still has it.
            StoreError: The store cannot be locked there.
        """
        if fcntl is None:
            raise StoreError(
                f"{self._path} cannot be locked, for this system has no flock: a durable store "
                "needs Linux or macOS"
            )
        if is_remote(os.path.dirname(self._path)):
            raise StoreError(
                f"{self._path} is on a network filesystem, where locks and SQLite's log are not "
                "safe: put it on a local disk"
            )
        deadline = time.monotonic() + wait
        try:
            while not self._try(os.O_RDWR if sign else os.O_RDONLY):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._locked()
                time.sleep(min(PAUSE, left))
            self._before = os.pread(self._fd, _MOST, 0)
            self.had_host = len(self._before.split()) == 3
            self.heartbeat = os.fstat(self._fd).st_mtime_ns if self.had_host else 0
            if sign:
                self._write(f"{os.getpid()} {_boot_id()} {secrets.token_hex(16)}\n".encode())
        except OSError as error:
            self.abandon()
            raise StoreError(
                f"{self._file}, the lock of {self._path}, cannot be used: {error}. It must be in a "
                "folder where this user may write, on a local disk with room"
            ) from error

    def _try(self, flags: int) -> bool:
        """Take the lock if it is free; return whether it was."""
        while True:
            fd = self._open(flags)
            if fd is None:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(fd, self._file):
                    self._fd, self._opened = fd, os.fstat(fd)
                    _held.add(fd)
                    return True
            except BlockingIOError:
                return False
            except OSError as error:
                if self._made:
                    os.unlink(self._file)
                if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                    raise OSError(
                        error.errno,
                        "its filesystem has no locks (flock): put the store on another one",
                    ) from error
                raise
            finally:
                if self._fd != fd:
                    os.close(fd)
            # Deleted between open and flock: the next host would lock another file.

    def _open(self, flags: int) -> int | None:
        """Open or make the file; return None if another process made or deleted it first."""
        with suppress(FileNotFoundError):
            self._made = False
            return os.open(self._file, flags)
        with suppress(FileExistsError):
            fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            self._made = True
            return fd
        return None

    def _write(self, text: bytes) -> None:
        self._text = text
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text, 0)

    def _locked(self) -> StoreLocked:
        pids = holders(self._file)
        if not pids:  # another user's, or there is no /proc
            with suppress(OSError, ValueError, IndexError):
                pids = (int(Path(self._file).read_bytes()[:_MOST].split()[0]),)
        return locked(self._path, pids)

    def check(self) -> None:
        """Check that the lock is still ours.

        Raises:
            StoreGone: Its file was deleted, replaced or written to, or its descriptor closed:
                another host may be at work.
        """
        if not self._is_open():
            raise self._gone(
                f"other code in this process has closed the descriptor of {self._file}, and "
                "another host may have started",
                "look for code that closes all descriptors, such as a library that makes daemons",
            )
        try:
            ours = _same(self._fd, self._file) and os.pread(self._fd, _MOST, 0) == self._text
        except OSError:
            ours = False
        if not ours:
            raise self._gone(
                f"its file {self._file} was deleted or changed while this host was at work, and "
                "another one may have started",
                "leave that file alone",
            )

    def _is_open(self) -> bool:
        """Return whether the descriptor is still that of the lock."""
        with suppress(OSError):
            opened = self._opened
            return opened is not None and os.path.samestat(os.fstat(self._fd), opened)
        return False

    def _gone(self, why: str, remedy: str) -> StoreGone:
        return StoreGone(
            f"the lock of {self._path} is lost: {why}. Nothing more is written; start this program "
            f"again, and {remedy}"
        )

    def beat(self, now: int) -> None:
        """Note that the host is alive.

        Args:
            now: The present, in nanoseconds since the epoch.
        """
        with suppress(OSError):  # the next `check` reports what is wrong with the file
            os.utime(self._fd, ns=(now, now))

    def hand_over(self) -> HandedOver:
        """Return what a worker process must be given to hold the lock."""
        return HandedOver(self._fd)

    def release(self) -> None:
        """Close the lock. It is free once the workers that hold it have ended. May be repeated."""
        if self._fd in _held:
            _held.discard(self._fd)
            if self._is_open():  # else the descriptor may be another file's by now
                os.close(self._fd)
        self._fd, self._opened = -1, None

    def abandon(self) -> None:
        """Close the lock and leave its file as it was found: the store was not used."""
        if self._fd in _held:
            with suppress(OSError):
                if self._made:
                    os.unlink(self._file)
                elif self._text:
                    former = self.heartbeat or os.fstat(self._fd).st_mtime_ns
                    self._write(self._before)
                    os.utime(self._fd, ns=(former, former))
        self.release()


class HandedOver:
    """A lock that a worker process holds, too; to be pickled while that is spawned."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        if self._fd not in _held:
            raise StoreError("the store was closed, so its lock cannot be handed to a worker")
        return _hold, (reduction.DupFd(self._fd),)


def _hold(duplicate: Any) -> HandedOver:
    """Hold the descriptor in the worker for as long as the process lives."""
    fd = duplicate.detach()
    os.set_inheritable(fd, False)  # it was inherited; the worker's children must not have it
    _held.add(fd)
    return HandedOver(fd)


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _boot_id() -> str:
    """Return the id of this boot: a process id means nothing in another one."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "-"


def holders(path: str) -> tuple[int, ...]:
    """Return the ids of the processes that have a file open, as far as /proc shows them."""
    try:
        wanted = os.stat(path)
    except OSError:
        return ()
    return tuple(sorted({pid for pid, found in _open_files() if os.path.samestat(found, wanted)}))


def _open_files() -> Iterator[tuple[int, os.stat_result]]:
    with suppress(OSError):
        for process in os.scandir("/proc"):
            if process.name.isdigit():
                with suppress(OSError):  # it has ended, or is another user's
                    for link in os.listdir(f"{process.path}/fd"):
                        with suppress(OSError):
                            yield int(process.name), os.stat(f"{process.path}/fd/{link}")


def is_remote(folder: str, mounts: str | None = None) -> bool:
    """Return whether a folder is on a network filesystem, as far as is known.

    Args:
        folder: Its path, absolute and without links.
        mounts: The mount table, in the format of /proc/self/mountinfo; by default this system's, if
            it has one.
    """
    if mounts is None:
        try:
            mounts = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
        except OSError:
            return False
    place, kind = "", ""
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split()[4])
        if len(point) >= len(place) and f"{folder}/".startswith(f"{point.rstrip('/')}/"):
            place, kind = point, rest.split()[0]
    return kind in _REMOTE
