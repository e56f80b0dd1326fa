"""A child process of a fresh interpreter: multiprocessing's, made safe for a host with threads.

What differs from `multiprocessing.context.SpawnProcess`:

- The child does not run the parent's `__main__`, so a script needs no
  `if __name__ == "__main__"` guard, and the parent's `sys.modules` is not touched.
- Asking for the exit code never waits, from whatever thread and however many ask. That somebody
  else has reaped the child (SIGCHLD is ignored, or a thread waits for any child) is an end, too:
  with an exit code that is not known.
- No signal is sent to a process that was reaped: its number may be another's by then.
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

_UNKNOWN = 255  # an exit code for multiprocessing, to which None is a process that lives

FROZEN_HINT = (
    "a worker of this packed program ran the program once more instead of its tasks: call "
    "multiprocessing.freeze_support() first thing in the program's main module, before it starts "
    "anything"
)

starting: threading.RLock = threading.RLock()
"""Held while a process is started and entered where it is ended with the interpreter."""

_reaping = threading.RLock()  # re-entered by a SIGCHLD handler that lists the active children

_started: weakref.WeakSet[_Popen] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: the locks may have been held, and what tells of this end is not ours."""
    for lock in (starting, _reaping):
        lock._at_fork_reinit()  # type: ignore[attr-defined]
    for popen in list(_started):
        _close(popen.told)
    _started.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _preparation_data(name: str) -> dict[str, Any]:
    """Return what a child is to set up first: as `spawn` does, but for the parent's main module.

    By its own function, which coverage, for one, replaces to add what is to come along.
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
    """Return what `spawn` gives, nothing if it cannot; and leave no trace of that."""
    undecided = multiprocessing.get_start_method(allow_none=True) is None
    try:
        data = spawn.get_preparation_data(name)
    except Exception:  # noqa: BLE001  the working directory was removed; main is no module
        return {}
    finally:
        if undecided:  # it has decided for the default, which the program may still change
            multiprocessing.set_start_method(None, force=True)
    if undecided:
        data.pop("start_method", None)
    return data


def _command_line(tracker: int | None, pipe: int) -> list[str]:
    command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=pipe)
    if _working_directory() is None and not is_frozen():
        command.insert(1, "-P")  # Python 3.13.0 imports nothing from a path that begins with it
    return command


def _working_directory() -> str | None:
    """Return the working directory, None if it was removed: a child begins there all the same."""
    try:
        return os.getcwd()
    except OSError:
        return None


def is_frozen() -> bool:
    """Whether this is a packed program: one file that is its own Python interpreter."""
    return bool(getattr(sys, "frozen", False))


def _close(*fds: int) -> None:
    for fd in fds:
        with suppress(OSError):  # a library has closed what is not its own
            os.close(fd)


class _Popen(popen_spawn_posix.Popen):
    """One child, from its start to its exit code.

    Attributes:
        told: A pipe to it, by whose end it sees that its parent has ended.
    """

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        # `super().__init__` is left out: it flushes standard output, which may be a full or a
        # broken pipe, for the sake of children that are forked.
        self._fds: list[int] = []
        self.returncode = None
        self.reaped_elsewhere = False
        self.finalizer = None  # type: ignore[assignment]  # as the base class has it
        self._launch(process)

    def _launch(self, process: multiprocessing.process.BaseProcess) -> None:
        """Start the child, and hand it what it needs, as `popen_spawn_posix` does.

        Not by the base class, which reads the parent's main module from `sys.modules`, where
        nothing can be put in its place without other threads seeing it.
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
            for mine in (0, 1):  # to read from: the sentinel; to write to: what it is told
                ends = os.pipe()
                ours.append(ends[mine])
                theirs.append(ends[1 - mine])
            self.sentinel, self.told = ours
            command = _command_line(tracker, theirs[1])
            program = os.fsencode(spawn.get_executable())
            self.pid = util.spawnv_passfds(program, command, self._fds + theirs)
        finally:
            self.finalizer = util.Finalize(self, _close, ours)
            _close(*theirs)
        _started.add(self)
        try:
            enlarge(self.told)  # takes all of it, without waiting for the child
            with open(self.told, "wb", closefd=False) as file:
                file.write(data.getbuffer())
        except OSError:
            pass  # it has ended already, as the sentinel tells
        except BaseException:
            self.kill()
            raise

    def close(self) -> None:
        """Give back its descriptors."""
        _started.discard(self)
        super().close()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, None while the process lives. Never waits, whatever the flag."""
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
                # It may have made a group of its own.
                for send in (os.killpg, os.kill) if number == signal.SIGKILL else (os.kill,):
                    with suppress(OSError):  # not ours to signal: it lives on, as is seen
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
            OSError: It cannot be had, for whatever reason; nothing is left of it.
        """
        if multiprocessing.process.current_process().daemon:
            raise OSError(
                "this process is a daemonic one of multiprocessing (as are those of Celery and "
                "Dask), which may have no children; use workers=0 in it, or make it with "
                "daemon=False"
            )
        if is_frozen() and spawn.is_forking(sys.argv):
            raise OSError(FROZEN_HINT)
        with starting:
            if util.is_exiting():
                raise OSError("the interpreter is exiting")
            try:
                if not is_frozen():
                    # It ends with Ctrl-C let through, whatever was before: not amid our start.
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
        """Whether the process, once started, has ended. It is then reaped, if it is ours."""
        return self._popen is None or self._popen.poll() is not None

    @property
    def known_exitcode(self) -> int | None:
        """The exit code; None if the process lives, or somebody else has reaped it."""
        if self._popen is None or self._popen.reaped_elsewhere:
            return None
        return self._popen.poll()

    def release(self) -> None:
        """Give back what the process took, of one that lives only the watch."""
        if self.watch not in (-1, self.sentinel):
            _close(self.watch)
        self.watch = -1
        if self.has_ended:
            self.close()


@contextmanager
def _blocked_interrupt() -> Iterator[None]:
    """Keep Ctrl-C from a child until it has its own handler: the mask is inherited."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
