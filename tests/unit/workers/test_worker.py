"""A worker's core without a process: frames in, frames out, and what is on the way between.

Its clock stands still, its pipe is a list, and what is written to it is held back when the test
says so: nothing begins that was not announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from turning import turns

from aioscheduler import current_manager, current_task
from aioscheduler._processes.process import workers_module
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.engine import Order
from aioscheduler._scheduling.timers import NUMBER_BITS
from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.shipping import HostShipper
from aioscheduler._transport import wire
from aioscheduler._transport.wire import DROPPED, IN_BLOB, RAISED, RETURNED, Kind
from aioscheduler.errors import UnknownTask
from aioscheduler.task import TaskRef

worker_module = workers_module("worker")

NOW = 100 * SECOND
LATER = NOW + SECOND


class HeldPipe:
    """The host's end, as a worker sees it.

    Attributes:
        frames: What was written, ticks left out; a blob is one frame.
        held: Whether what is sent stays here.
        ticks: Those that were left out.
    """

    def __init__(self, receive: Callable[[Any], None], closed: Callable[..., None]) -> None:
        self.receive, self.closed = receive, closed
        self.frames: list[list[Any]] = []
        self.ticks: list[list[Any]] = []
        self.held = False
        self.is_open = False
        self.fails: Exception | None = None
        self._waiting: list[tuple[bytes, Callable[[], None] | None]] = []

    def open(self, loop: Any, reader: int, writer: int) -> None:
        self.is_open = True

    def send(self, frame: bytes, written: Callable[[], None] | None = None) -> None:
        if self.fails is not None:
            raise self.fails
        self._waiting.append((frame, written))

    def send_blob(self, number: int, payload: bytes, then: bytes) -> None:
        self._waiting += [(wire.encode([Kind.BLOB, number, len(payload), 0]), None), (then, None)]

    def flush(self) -> None:
        while self._waiting and not self.held:
            data, written = self._waiting.pop(0)
            (frame,) = wire.Decoder().feed(data)
            (self.ticks if frame[0] == Kind.TICK else self.frames).append(frame)
            if written is not None:
                written()

    async def drain(self) -> None:
        self.flush()

    def check(self) -> None:
        """Nobody else closes it."""

    def close(self) -> None:
        self.is_open = False


class Place:
    """A worker, and the host's part of its life."""

    def __init__(
        self,
        order: Order = Order.TIMED,
        layout: tuple[int, ...] = (2,),
        failures: tuple[BaseException, ...] = (),
        generation: int = 0,
    ) -> None:
        self.shipper = HostShipper(HostCatalog())
        self.begun = [0] * layout[0]
        config = WorkerConfig(
            manager="ab",
            order=order,
            layout=layout,
            prefer_utc=True,
            host=0,
            generation=generation,
        )
        self.worker = worker_module.Worker(
            config, list(failures), self.begun, lambda: NOW, self._make_pipe
        )
        self._told = 0  # of the lines of definitions

    def _make_pipe(self, receive: Any, closed: Any) -> HeldPipe:
        self.pipe = HeldPipe(receive, closed)
        return self.pipe

    async def start(self, boot: bytes | None = b"") -> None:
        loop = asyncio.get_running_loop()
        self.serving = asyncio.create_task(self.worker.serve(loop, 0, 0))
        await asyncio.sleep(0)
        if boot is not None:
            self.tell_definitions()
            self.send(Kind.BOOT, boot, True)
            await turns()

    def send(self, *frame: Any) -> None:
        """Gives the worker a frame, as it arrives from a pipe."""
        (arrived,) = wire.Decoder().feed(wire.encode(list(frame)))
        self.pipe.receive(arrived)

    def tell_definitions(self) -> None:
        for number in sorted(self.shipper.catalog.log.lines):
            if number >= self._told:
                self.send(Kind.DEFINE, self.shipper.catalog.log.lines[number], True)
                self._told = number + 1

    def schedule(self, number: int, coro: Any, due: int = 0, scheduler: int = 0) -> None:
        function, payload, _ = self.shipper.take(coro)
        self.tell_definitions()
        self.send(Kind.SCHEDULE, number, scheduler, due, function, None, [payload])

    def take(self) -> list[list[Any]]:
        """Gives what was written since the last time, with kinds by name."""
        frames = [[Kind(frame[0]), *frame[1:]] for frame in self.pipe.frames]
        self.pipe.frames.clear()
        return frames

    def failure(self, payload: bytes) -> BaseException:
        return self.shipper.catalog.decode_failure(payload)


Make = Callable[..., Place]


@pytest.fixture
async def make(no_tasks_left: None, reports: list[Any]) -> AsyncIterator[Make]:
    """Makes places, whose workers are ended after the test."""
    made: list[Place] = []

    def make(*args: Any, **kwargs: Any) -> Place:
        made.append(Place(*args, **kwargs))
        return made[-1]

    yield make
    for place in made:
        place.worker.halt()
        place.serving.cancel()
        await asyncio.wait([place.serving])


@pytest.fixture
async def place(make: Make) -> Place:
    """One that is ready."""
    place = make()
    await place.start()
    assert place.take() == [[Kind.READY]]
    return place


async def give(value: Any) -> Any:
    return value


async def fail(word: str) -> None:
    raise LookupError(word)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# ---- its life


async def test_it_runs_nothing_before_it_is_told_to_begin(make: Make) -> None:
    place = make()
    await place.start(boot=None)
    place.schedule(0, give(1))
    await turns()
    assert place.take() == []
    place.send(Kind.BOOT, b"", True)
    await turns()
    assert place.take() == [
        [Kind.READY],
        [Kind.STARTED, 0, [0]],
        [Kind.FINISHED, 0, [0], RETURNED, [1]],
    ]
    assert len(place.pipe.ticks) == 1  # the first tick comes at once


async def test_the_initializer_comes_in_parts_and_first(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_levelToName", "_nameToLevel"):
        monkeypatch.setattr(logging, name, {})
    place = make()
    call = place.shipper.take_call(logging.addLevelName, (77, "of the initializer"))
    function = place.shipper.take_function(logging.getLevelName)
    await place.start(boot=None)
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [77])
    place.send(Kind.BOOT, call[:40], False)
    await turns()
    assert place.take() == []
    place.send(Kind.BOOT, call[40:], True)
    await turns()
    ready, _, finished = place.take()
    assert ready == [Kind.READY]
    assert finished == [Kind.FINISHED, 0, [0], RETURNED, ["of the initializer"]]


async def test_an_initializer_that_fails_is_its_last_word(make: Make) -> None:
    place = make()
    await place.start(place.shipper.take_call(fail, ("no database",)))
    ((kind, text),) = place.take()
    assert kind == Kind.FAILED
    assert text.endswith("LookupError: no database\n")
    await place.serving
    assert not place.pipe.is_open


async def test_what_went_wrong_before_is_told_in_place_of_ready(make: Make) -> None:
    place = make(failures=(ImportError("no uvloop"),))
    await place.start()
    ((kind, text),) = place.take()
    assert kind == Kind.FAILED
    assert "ImportError: no uvloop" in text
    await place.serving


async def test_close_cancels_what_waits_and_writes_the_last_outcomes(place: Place) -> None:
    place.schedule(0, forever())
    place.schedule(1, give(1), LATER)
    await turns()
    assert place.take() == [[Kind.STARTED, 0, [0]]]
    place.send(Kind.CLOSE, 0.0)
    await place.serving
    # What was not announced is the host's to count.
    assert place.take() == [[Kind.FINISHED, 0, [0], DROPPED, [None]]]
    assert not place.pipe.is_open


async def test_it_ends_when_its_host_has_gone(place: Place) -> None:
    place.schedule(0, forever())
    await turns()
    place.pipe.closed(None)
    await place.serving
    assert place.take()[-1] == [Kind.FINISHED, 0, [0], DROPPED, [None]]


async def test_nonsense_of_the_host_ends_it_loudly(place: Place) -> None:
    with pytest.raises(wire.WireError, match="a host does not send READY"):
        place.send(Kind.READY)
    place.pipe.closed(wire.WireError("nonsense"))  # as the pipe says of what `receive` raises
    await place.serving
    ((kind, text),) = place.take()
    assert kind == Kind.FAILED
    assert "WireError: nonsense" in text


async def test_drain_gives_back_what_was_announced_and_had_not_begun(place: Place) -> None:
    place.schedule(0, forever(), scheduler=1)
    await turns()
    place.take()
    place.pipe.held = True
    place.schedule(1, give(1))
    place.schedule(2, give(2), LATER)
    await turns()
    place.worker.drain()
    await turns()
    place.pipe.held = False
    place.pipe.flush()
    await turns()
    assert place.take() == [
        [Kind.STARTED, 0, [1]],
        [Kind.DRAINING],
        [Kind.UNSTARTED, 0, [1]],
    ]
    assert place.begun == [0, 1]  # task 0 alone
    assert not place.serving.done()  # it has ten seconds, and is here cancelled by the host
    place.send(Kind.CANCEL, 0, [0])
    await place.serving
    assert place.take() == [[Kind.FINISHED, 1, [0], DROPPED, [None]]]


async def test_what_fails_in_it_ends_it_and_is_told(place: Place) -> None:
    place.schedule(0, forever())
    await turns()
    place.take()
    place.worker.broken(None, MemoryError("no room"), {})
    await place.serving
    ((kind, text),) = place.take()  # and no word of the task: it is lost, and not cancelled
    assert kind == Kind.FAILED
    assert "MemoryError: no room" in text
    for engine in place.worker._engines:
        for task, _ in engine.running.values():
            task.cancel()


# ---- tasks


async def test_nothing_begins_before_its_announcement_is_written(place: Place) -> None:
    place.pipe.held = True
    place.schedule(4, give("a"))
    place.schedule(5, give("b"), scheduler=1)
    await turns()
    assert place.begun == [0, 0]
    place.pipe.held = False
    place.pipe.flush()
    await turns()
    assert place.begun == [5, 6]
    frames = place.take()
    assert frames[:2] == [[Kind.STARTED, 0, [4]], [Kind.STARTED, 1, [5]]]
    assert sorted(frames[2:], key=str) == [
        [Kind.FINISHED, 0, [4], RETURNED, ["a"]],
        [Kind.FINISHED, 1, [5], RETURNED, ["b"]],
    ]


async def test_outcomes_of_a_turn_are_one_frame_for_each_ending(place: Place) -> None:
    function = place.shipper.take_function(int)
    place.tell_definitions()
    payloads = ["1", "no number", "3", "4"]
    place.send(Kind.SCHEDULE, 7, 0, 0, function, None, payloads)
    await turns()
    started, returned, raised = place.take()
    assert started == [Kind.STARTED, 0, [7, 8, 9, 10]]
    assert returned == [Kind.FINISHED, 0, [7, 9, 10], RETURNED, [1, 3, 4]]
    assert raised[:4] == [Kind.FINISHED, 0, [8], RAISED]
    assert isinstance(place.failure(raised[4][0]), ValueError)


async def test_a_frame_has_columns_or_one_value_for_all(place: Place) -> None:
    function = place.shipper.take_function(abs)
    place.tell_definitions()
    place.send(
        Kind.SCHEDULE, [3, 1], [1, 0], [0, LATER], [function, function], [None, None], [-5, -6]
    )
    await turns()
    assert place.take() == [[Kind.STARTED, 1, [3]], [Kind.FINISHED, 1, [3], RETURNED, [5]]]
    place.send(Kind.CANCEL, 0, [1])
    await turns()
    assert place.take() == [[Kind.FINISHED, 0, [1], DROPPED, [None]]]


async def test_a_frame_that_cannot_be_taken_fails_its_own_tasks(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.send(Kind.SCHEDULE, 3, 0, "when?", 0, None, [1, 2])
    place.schedule(5, give(1), scheduler=1)
    await turns()
    frames = place.take()
    # The host takes no outcome of what was not announced.
    assert frames[:2] == [[Kind.STARTED, 0, [3]], [Kind.STARTED, 0, [4]]]
    failed, finished = (frame for frame in frames if frame[0] == Kind.FINISHED)
    assert failed[:4] == [Kind.FINISHED, 0, [3, 4], RAISED]
    assert [type(place.failure(payload)) for payload in failed[4]] == [TypeError, TypeError]
    assert finished == [Kind.FINISHED, 1, [5], RETURNED, [1]]
    assert "2 tasks cannot be taken by this worker, and fail" in caplog.text


async def test_what_cannot_be_opened_fails_that_task_alone(place: Place) -> None:
    place.send(Kind.SCHEDULE, 0, 0, 0, 999, None, [1])  # a function that nobody has defined
    place.schedule(1, give(1))
    await turns()
    frames = place.take()
    (failed,) = (frame for frame in frames if frame[0] == Kind.FINISHED and frame[3] == RAISED)
    assert failed[2] == [0]
    assert [Kind.FINISHED, 0, [1], RETURNED, [1]] in frames


async def test_what_a_task_raises_has_its_own_traceback(place: Place) -> None:
    place.schedule(0, fail("on purpose"))
    await turns()
    error = place.failure(place.take()[-1][4][0])
    assert (type(error), error.args) == (LookupError, ("on purpose",))
    text = str(error.__cause__)
    assert "in fail" in text
    assert "aioscheduler_workers" not in text


async def test_a_waiting_task_that_is_cancelled_is_never_announced(place: Place) -> None:
    place.schedule(0, give(1), LATER)
    place.schedule(1, forever())
    await turns()
    place.take()
    place.send(Kind.CANCEL, 0, [0, 1, 77])  # the last has ended meanwhile
    await turns()
    assert place.take() == [
        [Kind.FINISHED, 0, [0], DROPPED, [None]],
        [Kind.FINISHED, 0, [1], DROPPED, [None]],
    ]
    assert place.begun[0] == 2


async def test_a_queue_announces_one_at_a_time(make: Make) -> None:
    place = make(Order.LIFO, (1,))
    await place.start()
    function = place.shipper.take_function(abs)
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [-1, -2, -3])
    await turns(30)
    frames = place.take()
    for kind in (Kind.STARTED, Kind.FINISHED):
        assert [frame[2] for frame in frames if frame[0] == kind] == [[2], [1], [0]]
    # The next is announced once the one before has ended, if not told of that.
    assert frames.index([Kind.STARTED, 0, [0]]) > frames.index(
        [Kind.FINISHED, 0, [2], RETURNED, [3]]
    )


# ---- what is large


async def test_a_task_waits_for_its_large_arguments(place: Place) -> None:
    function, payload, _ = place.shipper.take(give(b"x" * 100_000))
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    place.schedule(1, give("small"))
    await turns()
    assert place.take() == [
        [Kind.STARTED, 0, [1]],
        [Kind.FINISHED, 0, [1], RETURNED, ["small"]],
    ]
    place.pipe.receive([Kind.BLOB, 0, payload])
    await turns()
    started, blob, finished = place.take()
    assert started == [Kind.STARTED, 0, [0]]
    assert (blob[:2], finished) == (
        [Kind.BLOB, 0],
        [Kind.FINISHED, 0, [0], RETURNED, [IN_BLOB]],  # behind its blob, as it is as large
    )
    assert blob[2] > 100_000


async def test_there_may_be_no_memory_for_them(place: Place) -> None:
    function, _, _ = place.shipper.take(give(b"x" * 100_000))
    place.tell_definitions()
    place.send(Kind.SCHEDULE, 0, 0, 0, function, None, [IN_BLOB])
    place.pipe.receive([Kind.BLOB, 0, None])
    await turns()
    _, failed = place.take()
    assert isinstance(place.failure(failed[4][0]), MemoryError)


async def test_large_arguments_of_a_cancelled_task_are_not_kept(place: Place) -> None:
    place.send(Kind.SCHEDULE, 0, 0, 0, 0, None, [IN_BLOB])
    await turns()
    place.send(Kind.CANCEL, 0, [0])
    await turns()
    assert place.take() == [[Kind.FINISHED, 0, [0], DROPPED, [None]]]
    place.pipe.receive([Kind.BLOB, 0, b"x" * 100_000])
    await turns()
    assert place.take() == []
    assert place.worker._blobs == {}


async def test_nor_are_those_that_had_arrived(place: Place) -> None:
    place.send(Kind.SCHEDULE, 0, 0, LATER, 0, None, [IN_BLOB])
    place.pipe.receive([Kind.BLOB, 0, b"x" * 100_000])
    assert list(place.worker._blobs) == [0]
    place.send(Kind.CANCEL, 0, [0])
    assert place.worker._blobs == {}


# ---- what tasks ask of their manager


async def successor(key: str | None) -> tuple[TaskRef, TaskRef]:
    ref = current_manager().schedule(give("next"), key=key)
    return current_task(), ref


async def test_a_successor_is_told_before_the_outcome_of_its_task(place: Place) -> None:
    place.schedule(3, successor(None), scheduler=1)
    await turns()
    started, asked, finished = place.take()
    assert started == [Kind.STARTED, 1, [3]]
    assert (asked[0], asked[2]) == (Kind.INSIDE, True)
    what, at, due, _, payload, _, alias, _ = wire.unpack(asked[1])
    assert (what, at, due, payload) == ("schedule", 1, NOW, "next")  # beside the task that asks
    assert finished[:4] == [Kind.FINISHED, 1, [3], RETURNED]
    own, ref = place.shipper.catalog.decode_result(finished[4][0])
    assert (own, ref) == (TaskRef("ab", 0, 1, 3), TaskRef("ab", 0, 1, alias))


async def test_no_two_processes_give_one_number_to_two_tasks(make: Make) -> None:
    aliases = set()
    for incarnation in (0, 1):
        place = make(layout=(1, 1), generation=incarnation)
        await place.start()
        for number in (0, 1):
            place.schedule(number, successor(None))
        await turns(20)
        asked = [frame for frame in place.take() if frame[0] == Kind.INSIDE]
        aliases |= {wire.unpack(frame[1])[6] for frame in asked}
    assert len(aliases) == 4
    assert min(aliases) >= 1 << NUMBER_BITS  # nor is it one of the host's


async def test_a_request_that_cannot_be_sent_is_refused_and_ends_it(place: Place) -> None:
    place.pipe.fails = MemoryError("no room")
    with pytest.raises(MemoryError):
        place.worker.cancel_inside(TaskRef("ab", 0, 1, 5))
    place.pipe.fails = None
    await place.serving
    assert place.take() == []  # not even the word that it failed could be sent


async def test_a_damaged_reference_is_refused_here(place: Place) -> None:
    for ref in (TaskRef("ab", 1, 0, 5), TaskRef("ba", 0, 0, 5)):
        with pytest.raises(UnknownTask):
            place.worker.cancel_inside(ref)
    assert place.worker.cancel_inside(TaskRef("ab", 0, 1, 5))
    await turns()
    ((kind, request, last),) = place.take()
    assert (kind, wire.unpack(request), last) == (Kind.INSIDE, ["cancel", 0, 1, 5], True)


# ---- a forked child


async def test_a_forked_child_goes_on_with_its_task_alone(place: Place) -> None:
    ends: list[BaseException | None] = []

    class Ended(BaseException):
        """Stands for the end of the process."""

    def end(error: BaseException | None) -> None:
        ends.append(error)
        raise Ended

    place.worker.disown(end)
    engine = place.worker._engines[0]
    function, payload, _ = place.shipper.take(fail("in the child"))
    place.tell_definitions()
    with contextlib.suppress(Ended):
        await place.worker.execute(engine, 0, (function, payload, None), 0)
    (error,) = ends
    assert isinstance(error, LookupError)
    function, payload, _ = place.shipper.take(give(1))
    place.tell_definitions()
    with contextlib.suppress(Ended):
        await place.worker.execute(engine, 1, (function, payload, None), 0)
    assert ends[1:] == [None]
    await turns()
    assert place.take() == []  # it has nothing to say to the host


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no task is run while its slice is begun")
async def test_nor_does_it_begin_the_rest_of_a_slice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def fork() -> None:
        place.worker.disown(lambda error: None)
        log.append("the task")

    def another() -> None:
        log.append("another")

    calls = {0: fork, 1: another}
    monkeypatch.setattr(worker_module, "open_call", lambda _, number, args: (calls[number], (), {}))
    place.send(Kind.SCHEDULE, 0, 0, 0, [0, 1], None, [None, None])
    await turns()
    assert place.take() == [[Kind.STARTED, 0, [0, 1]]]
    assert log == ["the task"]
