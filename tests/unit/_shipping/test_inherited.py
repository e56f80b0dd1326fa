"""Objects that a process can only inherit at its start."""

from __future__ import annotations

import multiprocessing
import pickle

import pytest

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.inherited import check_inheritable
from aioscheduler._shipping.workercatalog import WorkerCatalog


def test_only_primitives_for_spawned_processes_can_be_handed_on() -> None:
    check_inheritable(multiprocessing.get_context("spawn").Lock())
    forked = multiprocessing.get_context("fork").Lock()
    with pytest.raises(pickle.PicklingError, match=r"get_context\('spawn'\)"):
        check_inheritable(forked)
    with pytest.raises(RuntimeError):  # the pretended process is gone
        pickle.dumps(multiprocessing.get_context("spawn").Lock())


def test_a_call_refers_to_inherited_objects_by_index() -> None:
    host, worker = HostCatalog(), WorkerCatalog()
    locks = [multiprocessing.get_context("spawn").Lock() for _ in range(2)]
    payload, _ = host.dump_call((print, (1, *locks)))
    assert host.handed == locks
    worker.handed = ["first", "second"]
    assert worker.decode(payload) == (print, (1, "first", "second"))
