"""The workers of a manager, from start to end.

    start ─► look_after, once a tick ─┬─► close                  by the manager
                                      ├─► fail                   a worker cannot be started, or
                                      │                          too many were lost
                                      ├─► loop_ended             nobody closed it
                                      └─► end_without_loop       closed in another loop

Each worker has a link (`router.links`), in this loop or to another process. The router decides
where tasks go, and a supervisor replaces one process. Here is what concerns all workers at once.
What users call is in the manager.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.util
import weakref
from collections.abc import Callable
from functools import partial

from .._processes.process import Alive, end_workers
from .._processes.workerhandle import LocalWorkerHandle
from .._scheduling.alarm import next_tick
from .._scheduling.holdback import seems_to_end
from .._scheduling.lateness import History
from .._scheduling.lifespan import Lifespan
from .._scheduling.unheard import report_unheard
from .._shipping.hostcatalog import HostCatalog
from .._transport.pipe import abandon
from ..errors import ManagerClosed, StoreError, WorkerStartError
from ..task import State
from .admission import Admission
from .assembly import Assembly, Seams
from .keeper import Keeper
from .remote import RemoteLink
from .repeatfile import RepeatFile
from .repeats import Repeats
from .router import Router
from .settings import Settings
from .threadsafe import Abroad

log: logging.Logger = logging.getLogger("aioscheduler")


class Fleet:
    """The links of one manager, and what happens to all of them.

    Args:
        owner: The manager, for messages and as its own tasks know it.
        manager: Its id.
        settings: Its settings.
        seams: What it uses of the machine.
        router: Places its tasks; its links are set here.
        ended: Called when all links have ended.

    Attributes:
        remotes: The links to other processes.
        abroad: Calls of other threads.
        host: The lateness of this loop.
        keeper: Keeps the file of durable tasks; None: there is none.
        repeats: The repeats of the manager.

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
        ended: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._name = settings.name or manager
        self._ended = ended
        self._elsewhere = seams.elsewhere
        self._router = router
        self._loop_thread = router.loop_thread
        self.remotes: list[RemoteLink] = []
        self.abroad = Abroad(router, self.loop_ended)
        self.host: History = History()
        self._alive: Alive = {}
        self._catalog: HostCatalog | None = None  # the definitions that all workers get
        self._ready_awaited = False
        self._closing: asyncio.Task[None] | None = None
        self._timeout = 0.0  # of close()
        self._finalizer: multiprocessing.util.Finalize | None = None
        self._watch: weakref.ref[asyncio.TimerHandle] | None = None
        self._lifespan: Lifespan | None = None  # in this loop
        self._started = False  # whether the links are
        assembly = Assembly(
            *(owner, manager, settings, seams, router, self._alive, self.fail, self._tell_avoided)
        )
        self.keeper: Keeper | None = None
        if settings.local:
            local = assembly.make_local()
            self._lifespan = local.lifespan
            router.links = [local]
        else:
            self.remotes, self._catalog = assembly.make_remotes()
            router.links = self.remotes
        self.keeper = router.keeper = assembly.keeper
        self.repeats = Repeats(router, settings.order, seams.clock)
        if self.keeper is not None:
            self.repeats.file = RepeatFile(self.keeper)

    # ---- called by the manager

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the workers, in the running loop; with a store, once that is open.

        Raises:
            WorkerStartError: A process cannot be started; the manager has failed.
        """
        self._look_after(loop, loop.time(), _LoopEnd(loop, self.loop_ended))
        if self.keeper is None:
            self._start_links(loop)
        else:
            admission = Admission(self._router, self.keeper, self.repeats.under_way.admitted)
            self.keeper.open(loop, admission, partial(self._start_after_opening, loop))

    def _start_after_opening(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._router.closed is None:
            with contextlib.suppress(WorkerStartError):  # already reported: the manager fails
                self._start_links(loop)

    def _start_links(self, loop: asyncio.AbstractEventLoop) -> None:
        self._started = True
        try:
            for link in self._router.links:
                link.start(loop)
            self.repeats.start(loop)
        except BaseException as error:
            reason = WorkerStartError(f"a worker process could not be started: {error}")
            reason.__cause__ = error
            self.fail(reason)
            if isinstance(error, Exception):
                raise reason from error
            raise
        finally:
            self._guard_exit()

    async def ready(self) -> None:
        """Wait until every worker is ready.

        Raises:
            WorkerStartError: One of them could not start.
            StoreError: The store cannot be opened.
        """
        self._ready_awaited = True
        if self.keeper is not None:
            await self.repeats.ready()
            self._router.check_open()
        await asyncio.gather(*(link.ready() for link in self._router.links))

    async def close(self, timeout: float) -> None:
        """End the workers, once, even if the caller stops waiting. See `Manager.close`.

        A lifespan in this loop, and callers inside it, wait only for the end of the tasks.
        """
        loop = asyncio.get_running_loop()
        if self._closing is None:
            self._timeout = timeout
        while True:
            if self._closing is None or self._closing.cancelled():  # all tasks were cancelled
                self._closing = loop.create_task(self._close(self._timeout))
            closing = self._closing
            if self._lifespan is not None and self._lifespan.encloses_caller():
                await self._lifespan.wait_inside(closing)
                break
            await asyncio.wait([closing])
            if not closing.cancelled():
                closing.result()
                break

    async def _close(self, timeout: float) -> None:
        before = self._count_cancelled()
        self.repeats.stop()
        if self.keeper is not None:  # before tasks end as kept
            await self.keeper.settle()
        if self._elsewhere is not None:
            self._elsewhere.stop()
        await asyncio.gather(*(link.close(timeout) for link in self._router.links))
        if self._elsewhere is not None:
            await self._elsewhere.close()
        if self.keeper is not None:
            await self.keeper.close()
        if cancelled := self._count_cancelled() - before:
            log.info("%r: its close() cancelled %s unfinished tasks", self._owner, f"{cancelled:,}")
        watch = self._watch() if self._watch is not None else None
        if watch is not None:
            watch.cancel()
        self._finish()

    def end_without_loop(self) -> None:
        """End the workers when the loop cannot, as it is closed or does not run."""
        processes = [remote.supervisor.process for remote in self.remotes]
        end_workers(self._alive)
        self.loop_ended()
        reason = self._router.closed
        assert reason is not None
        for link in self._router.links:
            with contextlib.suppress(RuntimeError):  # of the closed loop, from half-done work
                link.kill(reason)
        for process in processes:
            if isinstance(process, LocalWorkerHandle):
                with contextlib.suppress(RuntimeError):
                    process.bury()
        for remote in self.remotes:
            remote.settle_all(None, lost=True)
        self._finish()

    # ---- other ends

    def fail(self, reason: Exception) -> None:
        """End everything, and report why."""
        router = self._router
        if router.closed is not None and router.closed.__cause__ is not None:
            return
        why = getattr(reason, "__notes__", [str(reason)])[0]
        router.closed = ManagerClosed(f"this manager has failed: {why}")
        router.closed.__cause__ = reason
        unfinished = router.placement.all_loads
        self.repeats.stop()
        if self._elsewhere is not None:
            self._elsewhere.stop()
        for link in router.links:
            link.kill(reason)
        self.abroad.relay()
        lets_go = self.keeper is not None or self._elsewhere is not None
        if lets_go and self._closing is None and self._loop_thread.loop:
            # The file and the nodes are released once no worker is left, even without a close().
            with contextlib.suppress(RuntimeError):  # of a closed loop
                self._closing = self._loop_thread.loop.create_task(self._close(0))
        heard = isinstance(reason, WorkerStartError)
        if isinstance(reason, StoreError):
            heard = self.keeper is not None and not self.keeper.is_open
        if not (self._ready_awaited and heard):  # by the caller that awaits `ready()`
            message = (
                f"manager {self._name} has failed, and its {unfinished} unfinished tasks with it; "
                "make a new one"
            )
            # Nothing the handler raises may pass: our caller must still end its worker's tasks.
            report_unheard(self._loop_thread.loop, message, reason, None)

    def loop_ended(self) -> None:
        """Give up, as the loop is closed or will not run any more: no task can end."""
        if self._router.closed is None:
            if self._router.placement.all_loads:
                log.warning(
                    "%r was not closed before its event loop ended; its unfinished tasks never end",
                    self._owner,
                )
            self._router.closed = ManagerClosed(
                "the event loop of this manager is closed; make a new manager, and close it before "
                "its loop ends"
            )
        self.repeats.stop()
        for descriptors in self._alive.values():
            abandon(descriptors)  # the worker then reads the end of the stream
        if self._elsewhere is not None:
            self._elsewhere.abandon()
        self.abroad.give_up(self._router.closed)
        if self.keeper is not None:
            self.keeper.abandon()

    # ---- inside

    def _look_after(self, loop: asyncio.AbstractEventLoop, planned: float, end: _LoopEnd) -> None:
        """Check once a tick that the workers answer, and how late this loop is."""
        self._loop_thread.check()  # the loop may have moved to another thread
        router = self._router
        now = loop.time()
        is_cut_off = self._closing is not None and self._closing.cancelled()
        if is_cut_off and not seems_to_end(loop):  # all tasks were cancelled, but the loop goes on
            self._closing = loop.create_task(self._close(self._timeout))
        # First, so that an exception below goes to the loop's handler and does not end the ticks.
        if router.closed is None or self._closing is not None:
            at = next_tick(now)
            self._watch = weakref.ref(loop.call_at(at, self._look_after, loop, at, end))
        lag = max(0.0, now - planned)
        self.host.add(now, lag, (0, 0, []))
        if self._elsewhere is not None:
            self._elsewhere.look_after()
        if self._catalog is not None:  # before the links, which send it to the workers
            self._catalog.look_after()
        if self._started:
            for link in router.links:
                link.look_after(lag)
        self.repeats.look_after()
        if self.keeper is not None:
            self.keeper.look_after()
        self._tell_avoided()

    def _tell_avoided(self) -> None:
        """Tell placement which workers new tasks should avoid."""
        router = self._router
        router.placement.avoid([link.stats().avoided for link in router.links])

    def _count_cancelled(self) -> int:
        return sum(link.stats().counts[State.CANCELLED.value] for link in self._router.links)

    def _guard_exit(self) -> None:
        """End the workers with the interpreter, or with the manager, if close() is not called."""
        if self.remotes:
            self._finalizer = multiprocessing.util.Finalize(
                self,
                end_workers,
                args=(self._alive,),
                exitpriority=10,  # before multiprocessing waits for its children
            )

    def _finish(self) -> None:
        self._ended()
        if self._finalizer is not None:
            self._finalizer.cancel()


class _LoopEnd:
    """Notices that the loop is closed: it is referenced only by a timer of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, loop_ended: Callable[[], None]) -> None:
        self._loop = loop
        self._loop_ended = loop_ended

    def __del__(self) -> None:
        if self._loop.is_closed():
            self._loop_ended()
