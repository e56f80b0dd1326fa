"""A child process with a fresh interpreter: multiprocessing's, made safe for a host with threads.

Differences from `multiprocessing.context.SpawnProcess`:

- The child does not run the parent's `__main__`, so a script needs no
  `if __name__ == "__main__"` guard, and the parent's `sys.modules` is not touched.
- Reading the exit code never blocks, from however many threads. If something else has reaped the
  child (SIGCHLD is ignored, or a thread waits for any child), it has ended, too: its exit code is
  not known.
- No signal is sent to a process that was reaped: its pid may belong to another by then.
- Once the interpreter exits, nothing is started any more.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from multiprocessing import context, popen_spawn_posix, reduction, resource_tracker, spawn, util
from typing import Any

from .._transport.pipe import enlarge

_UNKNOWN = 255  # an unknown exit code: for multiprocessing None means that the process lives

FROZEN_HINT = (
    "a worker of this packed program ran the program once more instead of its tasks: call "
    "multiprocessing.freeze_support() first thing in the program's main module, before it starts "
    "anything"
)

starting: threading.RLock = threading.RLock()
"""Held while a process is started and entered in the table from which exiting ends it."""

_reaping = threading.RLock()  # re-entered by a SIGCHLD handler that lists the active children

_started: weakref.WeakSet[_Popen] = weakref.WeakSet()


def _let_go() -> None:
    """Reset locks that may be held, and close pipes to the parent's children; in a forked child."""
    for lock in (starting, _reaping):
        lock._at_fork_reinit()  # type: ignore[attr-defined]
    for popen in list(_started):
        _close(popen.parent_pipe)
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _preparation_data(name: str) -> dict[str, Any]:
    """Return a child's preparation data: that of `spawn`, without the parent's main module.

    It calls the function of `spawn`, which coverage, for one, replaces to add its own data.
    """
    data = _standard_data(name)
    original = multiprocessing.process.ORIGINAL_DIR  # type: ignore[attr-defined]
    data |= {
        "name": name,
        "authkey": multiprocessing.process.current_process().authkey,
        "sys_path": [path or original for path in sys.path if path or original],
        "sys_argv": sys.argv,
        "orig_dir": original,
    }
    directory = _working_directory()
    if directory is not None:
        data["dir"] = directory
    return {key: value for key, value in data.items() if not key.startswith("init_main_from_")}


def _standard_data(name: str) -> dict[str, Any]:
    """Return the preparation data of `spawn`, empty if that fails, without side effects."""
    undecided = multiprocessing.get_start_method(allow_none=True) is None
    try:
        data = spawn.get_preparation_data(name)
    except Exception:  # noqa: BLE001  the working directory was removed; main is not a module
        return {}
    finally:
        if undecided:  # it has chosen the default, which the program may still change
            multiprocessing.set_start_method(None, force=True)
    if undecided:
        data.pop("start_method", None)
    return data


def _command_line(tracker: int | None, pipe: int) -> list[str]:
    command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=pipe)
    if _working_directory() is None and not is_frozen():
        command.insert(1, "-P")  # Python 3.13.0 cannot import if sys.path begins with a removed one
    return command


def _working_directory() -> str | None:
    """Return the working directory; None if it was removed, in which case a child still starts."""
    try:
        return os.getcwd()
    except OSError:
        return None


def is_frozen() -> bool:
    """Return whether this is a packed program: a file that is its own Python interpreter."""
    return bool(getattr(sys, "frozen", False))


def _close(*fds: int) -> None:
    for fd in fds:
        with suppress(OSError):  # a library has closed a descriptor that is not its own
            os.close(fd)


class _Popen(popen_spawn_posix.Popen):
    """One child, from its start to its exit code.

    Attributes:
        parent_pipe: The pipe to it; when the parent ends, the child reads its end.
    """

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        # `super().__init__` is left out: for forked children it flushes standard output, which may
        # be a full or broken pipe.
        self._fds: list[int] = []
        self.returncode = None
        self.reaped_elsewhere = False
        self.finalizer = None  # type: ignore[assignment]  # as the base class has it
        self._launch(process)

    def _launch(self, process: multiprocessing.process.BaseProcess) -> None:
        """Start the child, and send it what it needs, as `popen_spawn_posix` does.

        The base class reads the parent's main module from `sys.modules`, where it cannot be
        replaced without other threads seeing it.
        """
        # A packed program is its own resource tracker, too, once more from its beginning.
        tracker = None if is_frozen() else resource_tracker.getfd()
        if tracker is not None:
            self._fds.append(tracker)
        data = BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(_preparation_data(process.name), data)
            reduction.dump(process, data)
        finally:
            context.set_spawning_popen(None)
        ours: list[int] = []
        theirs: list[int] = []
        try:
            for mine in (0, 1):  # one to read from, the sentinel; one to write to, `parent_pipe`
                ends = os.pipe()
                ours.append(ends[mine])
                theirs.append(ends[1 - mine])
            self.sentinel, self.parent_pipe = ours
            command = _command_line(tracker, theirs[1])
            program = os.fsencode(spawn.get_executable())
            self.pid = util.spawnv_passfds(program, command, self._fds + theirs)
        finally:
            self.finalizer = util.Finalize(self, _close, ours)
            _close(*theirs)
        _started.add(self)
        try:
            enlarge(self.parent_pipe)  # so that it takes all the data without waiting for the child
            with open(self.parent_pipe, "wb", closefd=False) as file:
                file.write(data.getbuffer())
        except OSError:
            pass  # it has already ended, as the sentinel shows
        except BaseException:
            self.kill()
            raise

    def close(self) -> None:
        """Close its descriptors."""
        _started.discard(self)
        super().close()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, None while the process lives; never block, whatever the flag."""
        with _reaping:
            if self.returncode is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:
                    self.returncode, self.reaped_elsewhere = _UNKNOWN, True
                else:
                    if pid:
                        self.returncode = os.waitstatus_to_exitcode(status)
                        self.reaped_elsewhere = False
            return self.returncode

    def _send_signal(self, number: int) -> None:
        with _reaping:
            if self.poll() is None:
                # It may have made a process group of its own.
                for send in (os.killpg, os.kill) if number == signal.SIGKILL else (os.kill,):
                    with suppress(OSError):  # not permitted: it lives on, and the caller sees that
                        send(self.pid, number)


class SpawnProcess(context.SpawnProcess):
    """A process as described above.

    Attributes:
        watch: A descriptor that is readable once the process has ended; -1 before the start and
            after `release`. Without pidfds it is a pipe, which a grandchild can hold open.
    """

    watch: int = -1
    _popen: _Popen | None

    @staticmethod
    def _Popen(process: multiprocessing.process.BaseProcess) -> _Popen:  # noqa: N802  their name
        return _Popen(process)

    def start(self) -> None:
        """Start the process.

        Raises:
            OSError: It cannot be started, for whatever reason; nothing is left of it.
        """
        if multiprocessing.process.current_process().daemon:
            raise OSError(
                "this process is a daemonic one of multiprocessing (as those of Celery and Dask "
                "are), which may have no children; use workers=0 in it, or start it with "
                "daemon=False"
            )
        if is_frozen() and spawn.is_forking(sys.argv):
            raise OSError(FROZEN_HINT)
        with starting:
            if util.is_exiting():
                raise OSError("the interpreter is exiting")
            try:
                if not is_frozen():
                    # It unblocks Ctrl-C at its end, whatever was before: do that first.
                    resource_tracker.ensure_running()
                with _blocked_interrupt():
                    super().start()
            except OSError:
                raise
            except Exception as error:
                raise OSError(f"{type(error).__name__}: {error}") from error
        self.watch = self.sentinel
        with suppress(OSError, AttributeError):  # an old kernel, a sandbox, another system
            self.watch = os.pidfd_open(self.pid or 0)

    @property
    def has_ended(self) -> bool:
        """Whether the process, once started, has ended; it is then reaped, if it can be."""
        return self._popen is None or self._popen.poll() is not None

    @property
    def known_exitcode(self) -> int | None:
        """The exit code; None if the process lives, or something else has reaped it."""
        if self._popen is None or self._popen.reaped_elsewhere:
            return None
        return self._popen.poll()

    def release(self) -> None:
        """Close the process's descriptors; of one that still lives, only `watch`."""
        if self.watch not in (-1, self.sentinel):
            _close(self.watch)
        self.watch = -1
        if self.has_ended:
            self.close()


@contextmanager
def _blocked_interrupt() -> Iterator[None]:
    """Block Ctrl-C in a child, which inherits the mask, until it has its own handler."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
