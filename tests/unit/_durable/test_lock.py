"""The lock file: its owner, its contents, and how it is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import stat
import time
from multiprocessing import context, popen_spawn_posix
from pathlib import Path
from typing import Any

import pytest

from aioscheduler._durable import lock as module
from aioscheduler._durable.lock import Lock, holders, is_remote
from aioscheduler._durable.records import StoreGone
from aioscheduler.errors import StoreError, StoreLocked


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path.resolve() / "tasks.db")


def file_of(path: str) -> Path:
    return Path(f"{path}.lock")


def is_free(path: str) -> bool:
    lock = Lock(path)
    try:
        lock.take(0)
    except StoreLocked:
        return False
    lock.abandon()
    return True


def test_who_has_it_is_in_its_file(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    pid, boot, epoch = file_of(path).read_text().split()
    assert int(pid) == os.getpid()
    assert boot
    assert len(epoch) == 32
    assert stat.S_IMODE(file_of(path).stat().st_mode) == 0o600
    assert not os.get_inheritable(lock._fd)
    lock.check()
    lock.release()
    assert file_of(path).exists()  # or two hosts could have one each
    again = Lock(path)
    again.take(0)
    assert file_of(path).read_text().split()[2] != epoch
    again.release()


def test_another_host_is_told_who_has_it(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    with pytest.raises(StoreLocked, match=r"tasks\.db is in use by this very process") as caught:
        Lock(path).take(0)
    assert caught.value.pids == (os.getpid(),)
    lock.release()
    assert is_free(path)


def test_without_proc_the_pid_is_read(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock(path)
    lock.take(0)
    monkeypatch.setattr(module, "holders", lambda _: ())
    for text, pids, words in (
        (b"1234 boot epoch\n", (1234,), "process 1234"),
        (b"", (), "unknown process"),
        (b"nonsense", (), "unknown process"),
    ):
        file_of(path).write_bytes(text)
        with pytest.raises(StoreLocked, match=words) as caught:
            Lock(path).take(0)
        assert caught.value.pids == pids
    lock.release()


def test_it_waits_for_the_other_to_go(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Lock(path)
    first.take(0)
    now, pauses = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)
        if len(pauses) == 3:
            first.release()

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    second = Lock(path)
    second.take(60)
    assert pauses == [module.PAUSE] * 3
    third = Lock(path)
    with pytest.raises(StoreLocked):
        third.take(0.12)
    assert sum(pauses[3:]) == pytest.approx(0.12)  # no longer than asked
    second.release()


def test_a_file_deleted_between_open_and_lock_is_not_taken(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    deleted: list[int] = []

    def flock(fd: int, how: int) -> None:
        if len(deleted) < 2:
            file_of(path).unlink()
            deleted.append(fd)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(path)
    lock.take(0)
    assert len(deleted) == 2
    lock.check()
    lock.release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("there", [False, True])
def test_a_filesystem_without_locks_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch, code: int, there: bool
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(code, "no")

    if there:
        file_of(path).write_bytes(b"as it was")
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match="no locks .flock.: put the store on another"):
        Lock(path).take(0)
    assert file_of(path).exists() == there
    if there:
        assert file_of(path).read_bytes() == b"as it was"


def test_a_system_without_locks_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    with pytest.raises(StoreError, match="needs Linux or macOS"):
        Lock(path).take(0)


def test_a_network_filesystem_is_refused_before_anything_is_made(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_remote", lambda folder: folder == os.path.dirname(path))
    with pytest.raises(StoreError, match=r"tasks\.db is on a network filesystem"):
        Lock(path).take(0)
    assert not file_of(path).exists()


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/local rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:43 / /srv rw - nfs server:/srv rw
34 22 0:44 / /srv rw - ext4 /dev/vdc rw
35 22 0:45 / /far rw master:3 propagate_from:2 - fuse.sshfs a:/ rw
""".strip()


@pytest.mark.parametrize(
    ("folder", "remote"),
    [
        ("/", False),
        ("/var/lib", False),
        ("/home", True),
        ("/home/me", True),
        ("/homework", False),
        ("/home/local", False),
        ("/home/local/me", False),
        ("/mnt/my share/x", True),
        ("/mnt", False),
        ("/srv/data", False),  # mounted over
        ("/far/away", True),
    ],
)
def test_network_filesystems_are_known_by_the_table_of_mounts(folder: str, remote: bool) -> None:
    assert is_remote(folder, MOUNTS) == remote


def test_the_table_of_this_system_is_understood(tmp_path: Path) -> None:
    assert not is_remote(str(tmp_path.resolve()))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.db.lock").mkdir()
    with pytest.raises(
        StoreError, match=r"tasks\.db\.lock, the lock of .*a folder where this user"
    ):
        Lock(str(tmp_path / "tasks.db")).take(0)


# ---- is it still ours?


def test_a_deleted_file_is_noticed(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    file_of(path).unlink()
    with pytest.raises(StoreGone, match=r"tasks\.db\.lock was deleted or changed"):
        lock.check()
    other = Lock(path)
    other.take(0)  # it gets another file
    with pytest.raises(StoreGone):
        lock.check()
    other.check()
    lock.release()
    other.check()
    other.release()


def test_another_text_is_noticed(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    text = file_of(path).read_bytes()
    file_of(path).write_bytes(text + b"x")
    with pytest.raises(StoreGone):
        lock.check()
    file_of(path).write_bytes(text)
    lock.check()
    lock.release()
    with pytest.raises(StoreGone):
        lock.check()


def test_a_descriptor_that_others_have_closed_is_noticed(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    os.close(lock._fd)
    with pytest.raises(StoreGone, match=r"other code in this process has closed .*tasks\.db\.lock"):
        lock.check()
    lock.beat(1)
    lock.release()
    lock.release()
    assert is_free(path)


def test_a_descriptor_that_is_of_another_file_by_now_is_left_alone(
    path: str, tmp_path: Path
) -> None:
    lock = Lock(path)
    lock.take(0)
    with open(tmp_path / "other", "w") as other:
        os.dup2(other.fileno(), lock._fd)
        with pytest.raises(StoreGone, match="closed the descriptor of "):
            lock.check()
        number = lock._fd
        lock.release()
        assert os.path.samestat(os.fstat(number), os.fstat(other.fileno()))
        os.close(number)
    assert is_free(path)


# ---- when was a host at work?


def test_the_heartbeat_is_that_of_the_last_host(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    assert (lock.had_host, lock.heartbeat) == (False, 0)
    lock.beat(77 * 10**16)
    lock.release()
    lock = Lock(path)
    lock.take(0)
    assert (lock.had_host, lock.heartbeat) == (True, 77 * 10**16)
    lock.release()


def test_an_empty_file_had_no_host(path: str) -> None:
    file_of(path).touch()
    lock = Lock(path)
    lock.take(0)
    assert (lock.had_host, lock.heartbeat) == (False, 0)
    lock.release()


def test_abandon_leaves_the_file_as_it_was(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    lock.abandon()
    assert not file_of(path).exists()
    lock.take(0)
    lock.beat(77 * 10**16)
    lock.release()
    before = file_of(path).read_bytes()
    lock = Lock(path)
    lock.take(0)
    lock.abandon()
    lock.abandon()
    assert file_of(path).read_bytes() == before
    assert file_of(path).stat().st_mtime_ns == 77 * 10**16
    assert is_free(path)


@pytest.mark.parametrize("there", [False, True])
def test_a_reader_leaves_the_file_alone(path: str, there: bool) -> None:
    if there:
        former = Lock(path)
        former.take(0)
        former.release()
        os.utime(f"{path}.lock", ns=(7, 77 * 10**16))
        file_of(path).chmod(0o400)
    before = file_of(path).read_bytes() if there else None
    reader = Lock(path)
    reader.take(0, sign=False)
    assert (reader.had_host, reader.heartbeat) == (there, 77 * 10**16 if there else 0)
    assert not is_free(path)
    reader.abandon()
    assert file_of(path).exists() is there
    if there:
        assert file_of(path).read_bytes() == before
        assert file_of(path).stat().st_mtime_ns == 77 * 10**16
    assert is_free(path)


# ---- other processes


class Spawning:
    """A process being spawned, as `reduction.DupFd` sees it."""

    DupFd = popen_spawn_posix._DupFd  # type: ignore[attr-defined]

    def duplicate_for_child(self, fd: int) -> int:
        return os.dup(fd)


def handed_over(lock: Lock) -> Any:
    context.set_spawning_popen(Spawning())  # type: ignore[arg-type]
    try:
        text = pickle.dumps(lock.hand_over())
    finally:
        context.set_spawning_popen(None)
    return pickle.loads(text)


def test_the_lock_is_free_when_the_last_who_holds_it_has_gone(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    held = handed_over(lock)
    assert not os.get_inheritable(held._fd)
    lock.release()
    assert not is_free(path)
    fd = held._fd
    del held
    assert not is_free(path)  # nobody needs to keep the object
    module._held.discard(fd)
    os.close(fd)
    assert is_free(path)


def test_a_lock_that_was_released_is_not_handed_over(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    handed = lock.hand_over()
    lock.release()
    with pytest.raises(StoreError, match="was closed"):
        pickle.dumps(handed)


def test_a_forked_process_closes_all_locks(path: str) -> None:
    lock = Lock(path)
    lock.take(0)
    handed_over(lock)
    module._let_go()
    assert not module._held
    with pytest.raises(StoreGone):
        lock.check()
    assert is_free(path)
    lock.release()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_who_has_a_file_open_is_found(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert holders(str(file)) == ()
    file.touch()
    assert holders(str(file)) == ()
    with file.open():
        assert holders(str(file)) == (os.getpid(),)
