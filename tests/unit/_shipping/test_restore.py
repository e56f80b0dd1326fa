"""The functions that pickles call when they are read."""

from __future__ import annotations

from typing import Any

from acting import decode_with_another

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.sharedcode import EMPTY
from aioscheduler._shipping.workercatalog import WorkerCatalog


class Owner:
    """A manager, or its proxy."""


class Another:
    """Unpickled by another catalog than its surroundings."""

    def __reduce__(self) -> Any:
        return decode_with_another, (HostCatalog().pickle(EMPTY),)


def test_numbers_are_those_of_the_catalog_that_reads() -> None:
    host, worker = HostCatalog(), WorkerCatalog()
    host.owner, worker.owner = Owner(), Owner()
    payload = host.pickle([Another(), host.owner])
    assert worker.decode(payload) == [EMPTY, worker.owner]
    assert host.decode(payload) == [EMPTY, host.owner]
