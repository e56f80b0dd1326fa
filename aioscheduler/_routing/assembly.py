"""Makes the links of one manager, and the keeper of its store, from its settings.

Settings ─► Assembly ─┬─► LocalLink                       (workers=0)
                      ├─► RemoteLink, one for each worker
                      └─► Keeper, with a Keeping for each link
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from .._durable.records import Store
from .._durable.writer import InlineWriter, Writer
from .._processes.budget import RestartBudget
from .._processes.process import Alive
from .._processes.workerconfig import WorkerConfig
from .._processes.workerhandle import LocalWorkerHandle, MakeWorkerHandle
from .._scheduling.order import Order
from .._shipping.hostcatalog import HostCatalog
from .._shipping.hostshipping import HostShipper
from .._shipping.workercatalog import WorkerCatalog
from ..errors import NotShippable
from ..registry import check_plain
from .forwardedlogs import read_levels
from .hostupstream import HostUpstream
from .keeper import Keeper
from .keeping import Keeping
from .local import LocalLink
from .recycling import Recycling
from .remote import RemoteLink
from .router import Router
from .settings import Settings
from .storedcalls import LocalCalls, Notes, RemoteCalls


def _local_processes(
    config: WorkerConfig, loop_initializer: Callable[[], Any] | None, alive: Alive
) -> MakeWorkerHandle:
    def make(*args: Any) -> LocalWorkerHandle:
        levels = read_levels() if config.forward_logs else {}  # as of now
        return LocalWorkerHandle(replace(config, log_levels=levels), loop_initializer, alive, *args)

    return make


class Elsewhere(Protocol):
    """Other machines on which workers run (`_outpost.outposts.Outposts`)."""

    def look_after(self) -> None:
        """Do the regular work; called once a tick."""

    def stop(self) -> None:
        """Stop replacing workers."""

    async def close(self) -> None:
        """End everything there, once all workers have ended."""

    def abandon(self) -> None:
        """End everything there without the loop, which will not run any more."""


class Seams(NamedTuple):
    """What a manager uses of the machine; `testing` replaces it, to need no time or process.

    Attributes:
        clock: Returns the present in nanoseconds since the epoch.
        process_maker: Returns the maker of a slot's processes.
        writer: Returns the thread that uses a store.
        elsewhere: The other machines on which the workers run; None: they run here.
    """

    clock: Callable[[], int] = time.time_ns
    process_maker: Callable[[WorkerConfig, Callable[[], Any] | None, Alive], MakeWorkerHandle] = (
        _local_processes
    )
    writer: Callable[[], Writer | InlineWriter] = Writer
    elsewhere: Elsewhere | None = None


class Assembly:
    """Makes the parts of one manager.

    Args:
        owner: The manager, as its own tasks know it.
        manager: Its id.
        settings: Its settings.
        seams: What it uses of the machine.
        router: Places its tasks.
        alive: Every running process is entered here.
        failed: Called when a part cannot go on.
        avoided_changed: Called when the workers to avoid may have changed.

    Attributes:
        keeper: The keeper of the store, once the links are made; None: there is no store.

    Raises:
        NotShippable: The initializer, one of its arguments, or what propagates cannot travel.
    """

    def __init__(
        self,
        owner: object,
        manager: str,
        settings: Settings,
        seams: Seams,
        router: Router,
        alive: Alive,
        failed: Callable[[Exception], None],
        avoided_changed: Callable[[], None],
    ) -> None:
        self.keeper: Keeper | None = None
        self._owner = owner
        self._manager = manager
        self._settings = settings
        self._seams = seams
        self._router = router
        self._alive = alive
        self._failed = failed
        self._tell_avoided = avoided_changed
        self._upstream = HostUpstream(manager, router)

    def make_local(self) -> LocalLink:
        """Make the link to the schedulers in this loop."""
        settings, router = self._settings, self._router
        catalogs = keeping = None
        if settings.store is not None:
            catalog, reader = catalogs = HostCatalog(), WorkerCatalog()
            catalog.propagation = settings.propagation
            calls = LocalCalls(reader, settings.propagation)
            self._make_keeper(HostShipper(catalog), calls)
            assert self.keeper is not None
            keeping = self.keeper.keepings[0]
        link = LocalLink(
            settings.order,
            settings.layout[0],
            router.placement,
            self._router.loop_thread,
            router.new_due,
            self._seams.clock,
            self._manager,
            settings.boot,
            self._upstream,
            self._failed,
            settings.max_running,
            router.ids,
            settings.propagation,
            keeping,
        )
        if catalogs is not None:
            link.shipper.inspect = check_plain
            catalog, reader = catalogs  # tasks may pass the manager on
            catalog.owner, catalog.proxy = self._owner, link.proxy
            reader.owner = link.proxy
        return link

    def _make_keeper(self, shipper: HostShipper, calls: RemoteCalls | LocalCalls) -> None:
        settings = self._settings
        assert settings.store is not None
        shipper.inspect = check_plain
        self.keeper = Keeper(
            settings.store,
            self._seams.writer(),
            len(settings.layout),
            settings.order is Order.TIMED,
            shipper,
            calls,
            Notes(settings.propagation, shipper, WorkerCatalog()),
            self._seams.clock,
            self._router.loop_thread,
            self._router.new_due,
            self._failed,
        )

    def make_remotes(self) -> tuple[list[RemoteLink], HostCatalog]:
        """Make the links to worker processes, and the catalog of their definitions."""
        settings = self._settings
        remotes: list[RemoteLink] = []
        catalog = HostCatalog()
        catalog.owner = self._owner
        catalog.propagation = settings.propagation
        shipper = HostShipper(catalog)
        boot = b""
        if settings.boot is not None or settings.propagation is not None:
            boot = shipper.take_call(*settings.boot or (None, ()))
        elsewhere = self._seams.elsewhere is not None
        if elsewhere and catalog.handed:
            raise NotShippable(
                f"the initializer has an argument that only a process of this machine can be given "
                f"({type(catalog.handed[0]).__qualname__}), and workers are on others; let them "
                "make it themselves, or use a service that all of them reach"
            )
        config = WorkerConfig(
            manager=self._manager,
            order=settings.order,
            layout=tuple(settings.layout),
            prefer_utc=settings.prefer_utc,
            host=os.getpid(),
            handed=tuple(catalog.handed),  # by `take_call`
            max_running=settings.max_running,
            name=settings.name,
            measured=settings.max_rss_per_worker is not None,
            block_timeout=settings.block_timeout,
            forward_logs=settings.forward_logs,
        )
        if settings.store is not None:
            self._make_keeper(shipper, RemoteCalls(shipper))
            # Only processes of this machine can hold the file's lock; others end with the host.
            held = None if elsewhere else Held(settings.store)
            config = replace(config, has_store=True, held=held)
        keepings: Sequence[Keeping | None] = [None] * len(settings.layout)
        if self.keeper is not None:
            keepings = self.keeper.keepings
        budget = RestartBudget(*settings.max_restarts)
        limits = settings.max_tasks_per_worker, settings.max_rss_per_worker
        recycling: Recycling | None = None
        if any(limit is not None for limit in limits):
            recycling = Recycling(
                len(settings.layout),
                *limits,
                lambda worker, why: remotes[worker].supervisor.recycle(why),
                self._tell_avoided,
                settings.name or "",
            )
        remotes += [
            RemoteLink(
                worker,
                schedulers,
                settings.order is Order.TIMED,
                self._seams.process_maker(
                    replace(config, worker=worker), settings.loop_initializer, self._alive
                ),
                budget,
                shipper,
                self._router.placement,
                self._router.loop_thread,
                self._seams.clock,
                self._manager,
                boot,
                settings.rerun,
                self._failed,
                partial(self._upstream.asked_inside, remotes, catalog),
                self._router.new_due,
                self._router.ids,
                None if recycling is None else recycling.wears[worker],
                settings.name or "",
                keepings[worker],
            )
            for worker, schedulers in enumerate(settings.layout)
        ]
        return remotes, catalog


class Held:
    """What a process must hold of a store; fetched when the process is spawned."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __reduce__(self) -> Any:
        return _hold, (self._store.hand_over(),)


def _hold(held: Any) -> Any:
    return held
