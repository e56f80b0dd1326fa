"""The supervisor of a slot, with simulated processes: it is filled or lost, whatever raises."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from aioscheduler._processes.budget import NOT_HAD, RestartBudget
from aioscheduler._processes.draining import DRAIN_TIME, KILL_AFTER
from aioscheduler._processes.occupant import End, Then
from aioscheduler._processes.supervisor import START_PATIENCE, Supervisor
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Kind
from aioscheduler.errors import EXIT_OF_BLOCKED
from aioscheduler.stats import WorkerState


class Life:
    node: str | None = None
    usage: None = None
    shared_end: object = None

    def __init__(self, rig: Rig, receive: Any, ended: Any) -> None:
        self.pid: int | None = 4711
        self.rig, self.receive, self.ended = rig, receive, ended
        self.causes: list[str] = []
        self.pipe: Any = self
        self.frames: list[Any] = []

    def check(self) -> None: ...
    def flush(self) -> None: ...

    def send(self, frame: bytes) -> None:
        self.frames += wire.Decoder().feed(frame)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.rig.suffer("start")

    def blocked(self) -> None: ...

    def begun(self, scheduler: int) -> tuple[int, int]:
        return 0, 0

    def kill(self, cause: str = "") -> None:
        self.causes.append(cause)


class Rig:
    """Launches processes, is their occupant, and raises where it should."""

    def __init__(self, loop: Any) -> None:
        self.raises: list[str] = []
        self.processes: list[Life] = []
        self.ends: list[End] = []
        self.begun = 0
        self.forgiving = False
        self.supervisor = Supervisor(0, self.launch, RestartBudget(3, 30.0), self)
        self.supervisor.start(loop)

    def suffer(self, where: str) -> None:
        if self.raises and self.raises[0] == where:
            self.raises.pop(0)
            raise MemoryError(where)

    def launch(self, number: int, receive: Any, ended: Any) -> Life:
        self.suffer("launch")
        self.processes.append(Life(self, receive, ended))
        return self.processes[-1]

    def receive(self, frame: Any) -> None:
        self.begun += frame[0] == Kind.READY

    def forgives(self) -> bool:
        return self.forgiving

    def connect(self, process: Any) -> None:
        self.suffer("connect")

    def ended(self, end: End) -> None:
        if end.then is Then.REPLACED:
            self.suffer("ended")
        self.ends.append(end)


class Loop:
    """A loop whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def call_later(self, delay: float, call: Any) -> Any:
        handle = asyncio.Handle(call, (), asyncio.get_running_loop())
        self.calls.append((self.now + delay, handle))
        return handle

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        due = [handle for when, handle in self.calls if when <= self.now]
        self.calls = [call for call in self.calls if call[0] > self.now]
        for handle in due:
            if not handle.cancelled():
                handle._run()


@pytest.fixture
async def loop() -> Loop:
    return Loop()


@pytest.fixture
async def rig(loop: Loop) -> Rig:
    made = Rig(loop)
    made.processes[0].receive([Kind.READY])
    return made


@pytest.mark.parametrize("where", ["launch", "start"])
async def test_a_process_that_cannot_be_had_for_any_reason_is_tried_again(
    rig: Rig, loop: Loop, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.raises = [where, where]
    rig.processes[0].ended(-9, "")
    for _ in range(8):
        loop.pass_(0.2)
    assert rig.supervisor.process is rig.processes[-1]
    assert len(rig.processes) == (2 if where == "launch" else 4)
    assert [end.then for end in rig.ends] == [Then.REPLACED]
    assert caplog.text.count("cannot be started, the next attempt is in") == 2


async def test_workers_that_never_begin_are_logged_less_and_less_often(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as on a node with stale code, after a deploy of the host."""
    rig.processes[0].ended(-9, "")
    for _ in range(20):
        loop.pass_(6)
        rig.processes[-1].shared_end = NOT_HAD
        rig.processes[-1].ended(None, "node n has code_version 1, and this host has 2")
    assert [end.is_said for end in rig.ends].count(True) == 1 + 5  # the 1st, 2nd, 4th, 8th …
    assert rig.supervisor.counts["restarts"] == 21
    assert rig.supervisor.state is WorkerState.RESTARTING
    loop.pass_(6)
    rig.processes[-1].receive([Kind.READY])
    assert "is ready, after 20 that were not" in caplog.text
    rig.processes[-1].ended(-9, "")
    assert rig.ends[-1].is_said


async def test_a_lack_of_room_for_a_process_is_logged_less_and_less_often(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    rig.raises = ["launch"] * 20
    rig.processes[0].ended(-9, "")
    for _ in range(21):
        loop.pass_(6)
    assert rig.supervisor.process is rig.processes[1]
    assert caplog.text.count("cannot be started, the next attempt is in") == 5


async def test_a_process_to_which_tasks_cannot_be_sent_is_killed(rig: Rig, loop: Loop) -> None:
    rig.raises = ["connect"]
    rig.processes[0].ended(-9, "")
    loop.pass_(0.1)
    assert "tasks cannot be sent to it" in rig.processes[1].causes[0]
    rig.processes[1].ended(-9, rig.processes[1].causes[0])
    loop.pass_(0.2)
    assert rig.supervisor.process is rig.processes[2]


async def test_an_end_that_cannot_be_handled_is_the_end_of_the_manager(rig: Rig) -> None:
    rig.raises = ["ended"]
    rig.processes[0].ended(-9, "")
    (end,) = rig.ends
    assert end[:2] == (Then.FAILED, -9)
    assert end.reason is not None
    assert "could not be handled" in end.reason.__notes__[0]
    assert rig.supervisor.state is WorkerState.STOPPED


@pytest.mark.parametrize(
    ("words", "said", "cause"),
    [
        ("", "", ""),
        ("what it sends cannot be read", "", "what it sends cannot be read"),
        ("Fatal Python error: Aborted\n\n  File ...", "", "Fatal Python error: Aborted"),
        (
            "Traceback ...\nSystemExit: 3\n",
            "",
            "SystemExit: 3, raised out of its event loop, as by",
        ),
        ("", "Traceback ...\nMemoryError\n", "MemoryError"),
    ],
)
async def test_the_cause_of_an_end_is_one_line(rig: Rig, words: str, said: str, cause: str) -> None:
    if said:
        rig.processes[0].receive([Kind.FATAL, said])
    rig.processes[0].ended(1, words)
    assert rig.supervisor.cause.startswith(cause)
    assert bool(rig.supervisor.cause) == bool(cause)
    assert "\n" not in rig.supervisor.cause


@pytest.mark.parametrize("drains", [True, False])
async def test_the_place_where_a_process_has_ended_is_below_the_line_that_says_so(
    rig: Rig, drains: bool
) -> None:
    if drains:
        rig.processes[0].receive([Kind.DRAINING])
    rig.processes[0].ended(EXIT_OF_BLOCKED, "task x is to blame\n  File y")
    told = "was told to end and " if drains else ""
    assert rig.ends[0].story == (
        f"worker 0 (pid 4711) {told}was ended by its block_timeout (task x is to blame)\n  File y"
    )


async def test_the_end_of_one_process_is_not_that_of_the_next(rig: Rig, loop: Loop) -> None:
    rig.processes[0].ended(1, "what it sends cannot be read")
    loop.pass_(0.1)
    rig.processes[1].receive([Kind.READY])
    rig.processes[1].ended(-9, "")
    assert rig.supervisor.cause == ""


async def test_a_slow_start_is_logged_once_and_avoided(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = rig.supervisor
    rig.processes[0].ended(-9, "")
    loop.pass_(0.1)
    assert not supervisor.avoided
    for _ in range(5):
        loop.pass_(START_PATIENCE / 2)
        supervisor.look_after()
    assert supervisor.avoided
    assert caplog.text.count("is not ready after") == 1
    rig.processes[1].receive([Kind.READY])
    assert not supervisor.avoided


async def test_any_frame_is_a_sign_of_life(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """A tick may be behind a million outcomes."""
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        loop.pass_(6.0)
        rig.processes[0].receive([Kind.ENDED, 0, [], 0, []])
        rig.supervisor.look_after()
    assert not caplog.text
    loop.pass_(6.0)
    rig.supervisor.look_after()
    assert rig.supervisor.state is WorkerState.SILENT
    assert rig.supervisor.avoided


@pytest.mark.parametrize(
    ("begun", "said"),
    [(False, "is killed: it was still starting"), (True, "something its tasks have left behind")],
)
async def test_a_process_that_does_not_end_is_killed_and_that_is_logged(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture, begun: bool, said: str
) -> None:
    process = rig.processes[-1]
    if not begun:
        process.ended(-9, "")
        loop.pass_(0.1)
        process = rig.processes[-1]
    closing = asyncio.create_task(rig.supervisor.close(-KILL_AFTER, str))  # its time is up
    while not process.causes:
        await asyncio.sleep(0)
    process.ended(-9, "")
    await closing
    assert said in caplog.text
    assert ("swallows its cancellation" in caplog.text) is begun


async def test_every_process_has_one_end_whoever_ends_it(rig: Rig, loop: Loop) -> None:
    rig.processes[0].ended(-9, "")
    loop.pass_(0.1)
    rig.supervisor.kill()
    assert len(rig.ends) == 1  # it has not ended yet
    rig.processes[1].ended(-9, "")
    rig.supervisor.kill()
    await rig.supervisor.close(0, str)
    assert [end.then for end in rig.ends] == [Then.REPLACED, Then.CLOSED]
    assert [end.process for end in rig.ends] == rig.processes
    assert rig.ends[0].story.startswith("worker 0 (pid 4711) was killed by SIGKILL")


async def test_a_place_that_is_empty_ends_at_once(rig: Rig) -> None:
    rig.processes[0].ended(-9, "")  # the next one is being started
    rig.supervisor.kill()
    assert [end.then for end in rig.ends] == [Then.REPLACED, Then.CLOSED]
    assert rig.supervisor.state is WorkerState.STOPPED


async def test_too_many_ends_are_reported_once_with_the_reason(rig: Rig, loop: Loop) -> None:
    for process in range(4):
        rig.processes[process].ended(-9, "")
        loop.pass_(0.1)
        if process < 3:
            rig.processes[process + 1].receive([Kind.READY])
    assert [end.then for end in rig.ends] == [Then.REPLACED] * 3 + [Then.FAILED]
    assert "max_restarts=(3, 30.0)" in rig.ends[-1].reason.__notes__[0]  # type: ignore[union-attr]


async def test_ends_that_are_forgiven_are_never_too_many(rig: Rig, loop: Loop) -> None:
    rig.forgiving = True
    for number in range(5):
        rig.processes[-1].receive([Kind.READY])
        rig.processes[-1].ended(-9, "")
        loop.pass_(0.1)
        assert len(rig.processes) == number + 2
    assert {end.then for end in rig.ends} == {Then.REPLACED}
    assert rig.supervisor.counts["restarts"] == 5


@pytest.mark.parametrize("ends_itself", [True, False])
async def test_a_task_that_still_runs_after_a_drain_is_lost_with_the_reason(
    rig: Rig, loop: Loop, ends_itself: bool
) -> None:
    rig.processes[0].receive([Kind.DRAINING])
    assert rig.supervisor.state is WorkerState.DRAINING
    if ends_itself:
        rig.processes[0].receive([Kind.DRAINED])
        rig.processes[0].ended(0, "")
    else:
        loop.pass_(DRAIN_TIME + KILL_AFTER)
        assert rig.processes[0].causes == [""]
        rig.processes[0].ended(-9, "")
    assert "told to end (SIGTERM), and 10 s later this task still ran" in rig.supervisor.cause


@pytest.mark.parametrize("recycled", [True, False])
@pytest.mark.parametrize(
    ("exitcode", "word"), [(-9, None), (0, None), (0, Kind.FATAL), (-11, Kind.DRAINED)]
)
async def test_a_process_that_dies_in_a_drain_is_a_death_like_any_other(
    rig: Rig, loop: Loop, recycled: bool, exitcode: int, word: Kind | None
) -> None:
    for n in range(4):  # a fourth is too many
        process = rig.processes[n]
        if recycled:
            rig.supervisor.recycle("it is large")
        process.receive([Kind.DRAINING])
        if word is not None:
            process.receive([word, "MemoryError"])
        process.ended(exitcode, "")
        assert rig.supervisor.cause == ("MemoryError" if word is Kind.FATAL else "")
        assert not rig.ends[n].planned
        if n < 3:
            loop.pass_(0.1)
            rig.processes[n + 1].receive([Kind.READY])
    loop.pass_(DRAIN_TIME + KILL_AFTER)
    assert [process.causes for process in rig.processes] == [[]] * 4  # no later one was killed
    assert rig.supervisor.counts == {"restarts": 3}
    assert [end.then for end in rig.ends] == [Then.REPLACED] * 3 + [Then.FAILED]


async def test_one_that_is_killed_when_its_time_is_over_spends_no_budget(
    rig: Rig, loop: Loop
) -> None:
    for process in range(9):
        rig.processes[process].receive([Kind.DRAINING])
        loop.pass_(DRAIN_TIME + KILL_AFTER)
        rig.processes[process].ended(-9, "")
        loop.pass_(0.1)
        rig.processes[process + 1].receive([Kind.READY])
    assert rig.supervisor.counts == {"restarts": 9}


async def test_one_that_has_ended_is_not_recycled_for_what_is_read_of_it(rig: Rig) -> None:
    process = rig.processes[0]
    process.pid = None
    assert not rig.supervisor.recycle("it has run 5 tasks")
    assert rig.supervisor.state is WorkerState.READY
    process.ended(-9, "")
    assert rig.supervisor.counts == {"restarts": 1}
    assert "was recycled" not in rig.ends[0].story


async def test_however_often_there_was_no_process_it_is_tried_again(rig: Rig, loop: Loop) -> None:
    rig.supervisor._unready = 2_000
    rig.raises = ["launch"]
    rig.processes[0].ended(-9, "")
    loop.pass_(6.0)
    loop.pass_(6.0)
    assert len(rig.processes) == 2


async def test_what_a_failing_process_says_may_be_anything(rig: Rig) -> None:
    words: Any = [1, b"2"]
    rig.processes[0].receive([Kind.FATAL, words])
    rig.processes[0].ended(1, "")
    assert [end.then for end in rig.ends] == [Then.REPLACED]
    assert "[1, b'2']" in rig.ends[0].story


# ---- recycling


async def test_one_that_is_recycled_goes_is_avoided_and_spends_no_budget(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    supervisor = rig.supervisor
    for process in range(9):  # three deaths are the budget
        assert rig.begun == process + 1
        assert not supervisor.avoided
        assert supervisor.recycle("it has run 5 tasks")
        assert rig.processes[process].frames == [[Kind.DRAIN]]
        assert supervisor.state is WorkerState.DRAINING
        assert supervisor.avoided
        assert not supervisor.recycle("it has run 6 tasks")  # it is already draining
        rig.processes[process].receive([Kind.DRAINING])
        rig.processes[process].receive([Kind.DRAINED])
        rig.processes[process].ended(0, "")
        loop.pass_(0.1)
        assert supervisor.avoided  # until the next one is ready
        rig.processes[process + 1].receive([Kind.READY])
    assert all(end.then is Then.REPLACED and end.planned for end in rig.ends)
    assert (supervisor.counts["recycled"], supervisor.counts["restarts"]) == (9, 0)
    assert "worker 0 (pid 4711) was recycled and exited with status 0" in rig.ends[0].story
    said = [record.getMessage() for record in caplog.records]
    assert said == ["worker 0 (pid 4711) is recycled: it has run 5 tasks"] * 9


@pytest.mark.parametrize("dies", [True, False])
async def test_who_is_recycled_until_a_slow_process_is_ready_is_said(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture, dies: bool
) -> None:
    supervisor = rig.supervisor
    supervisor.recycle("it has run 5 tasks")
    rig.processes[0].receive([Kind.DRAINED])
    rig.processes[0].ended(0, "")
    loop.pass_(0.1)
    if dies:  # the slot is still refilling
        rig.processes[1].ended(-9, "")
        loop.pass_(0.1)
    for said in ("; no other worker is recycled until it is", "go elsewhere if they can"):
        for _ in range(3):
            loop.pass_(START_PATIENCE)
            supervisor.look_after()
        (record,) = caplog.records
        assert record.getMessage().endswith(said)
        caplog.clear()
        rig.processes[-1].receive([Kind.READY])
        rig.processes[-1].ended(-9, "")
        loop.pass_(0.1)


@pytest.mark.parametrize("answers", [True, False])
async def test_one_that_does_not_go_is_killed_and_that_is_why_its_tasks_are_lost(
    rig: Rig, loop: Loop, answers: bool
) -> None:
    process = rig.processes[0]
    rig.supervisor.recycle("it has run 5 tasks")
    loop.pass_(2.0)
    if answers:  # late: its loop was busy, which gains it no time
        process.receive([Kind.DRAINING])
    loop.pass_(DRAIN_TIME + KILL_AFTER - 2.5)
    assert process.causes == []
    loop.pass_(0.5)
    assert process.causes == [""]
    process.ended(-9, "")
    assert rig.supervisor.cause == (
        "it was recycled, as it has run 5 tasks, and 10 s later this task still ran"
    )
    assert not rig.ends[0].planned
    assert rig.supervisor.counts["recycled"] == 1


async def test_one_that_dies_while_it_is_recycled_dies_of_something_else(
    rig: Rig, loop: Loop
) -> None:
    rig.supervisor.recycle("it has run 5 tasks")
    rig.processes[0].ended(-11, "Fatal Python error: Segmentation fault")
    assert rig.supervisor.cause == "Fatal Python error: Segmentation fault"
    assert "SIGSEGV" in rig.ends[0].story
    assert not rig.ends[0].planned
    loop.pass_(DRAIN_TIME + KILL_AFTER)
    assert rig.processes[1].causes == []  # the timer of the first did not kill it


async def test_nothing_is_recycled_that_starts_drains_or_ends(rig: Rig, loop: Loop) -> None:
    supervisor = rig.supervisor
    rig.processes[0].receive([Kind.DRAINING])  # after SIGTERM
    assert not supervisor.recycle("it is large")
    rig.processes[0].ended(0, "")
    assert not supervisor.recycle("it is large")
    assert (rig.ends[0].planned, supervisor.counts["restarts"]) == (False, 1)
    loop.pass_(0.1)
    assert not supervisor.recycle("it is large")
    rig.processes[1].receive([Kind.READY])
    supervisor.kill()
    assert not supervisor.recycle("it is large")


async def test_close_ends_one_that_is_recycled_in_its_own_time(rig: Rig, loop: Loop) -> None:
    rig.supervisor.recycle("it is large")
    closing = asyncio.create_task(rig.supervisor.close(None, str))
    await asyncio.sleep(0)
    loop.pass_(100.0)
    assert rig.processes[0].causes == []
    rig.processes[0].ended(0, "")
    await closing
    assert [end.then for end in rig.ends] == [Then.CLOSED]
    assert rig.supervisor.counts["recycled"] == 0


async def test_sigterm_and_recycling_at_once_are_one_end(rig: Rig, loop: Loop) -> None:
    rig.supervisor.recycle("it is large")
    rig.processes[0].receive([Kind.DRAINING])  # after SIGTERM, before it has read DRAIN
    assert len([when for when, _ in loop.calls]) == 1
    rig.processes[0].receive([Kind.DRAINED])
    rig.processes[0].ended(0, "")
    assert rig.supervisor.counts["recycled"] == 1


async def test_a_replacement_that_cannot_begin_is_no_recycling(rig: Rig, loop: Loop) -> None:
    rig.supervisor.recycle("it is large")
    rig.processes[0].receive([Kind.DRAINED])
    rig.processes[0].ended(0, "")
    loop.pass_(0.1)
    rig.processes[1].ended(1, "")
    assert rig.supervisor.avoided
    assert rig.supervisor.counts == {"recycled": 1, "restarts": 1}
    assert not rig.ends[1].planned


async def test_messages_name_the_manager(loop: Any) -> None:
    rig = Rig(loop)
    rig.supervisor = Supervisor(1, rig.launch, RestartBudget(3, 30.0), rig, "bots")
    rig.supervisor.start(loop)
    rig.processes[-1].receive([Kind.READY])
    rig.processes[-1].ended(-9, "")
    assert rig.ends[-1].story.startswith("worker 1 of bots (pid ")


async def test_processes_that_end_by_one_cause_cost_one_replacement(rig: Rig, loop: Loop) -> None:
    """Alone, each of these ends would cost one of the three that the budget has."""
    node = object()
    for _ in range(8):
        rig.processes[-1].shared_end = node
        rig.processes[-1].ended(None, "its node is gone")
        loop.pass_(0.1)
        rig.processes[-1].receive([Kind.READY])
    assert {end.then for end in rig.ends} == {Then.REPLACED}
    for _ in range(3):  # alone, these are one too many
        rig.processes[-1].ended(-9, "")
        loop.pass_(0.1)
        rig.processes[-1].receive([Kind.READY])
    assert rig.ends[-1].then is Then.FAILED


async def test_what_has_no_process_yet_is_not_waited_for(rig: Rig, loop: Loop) -> None:
    rig.processes[0].ended(None, "its node is gone")
    loop.pass_(0.1)
    process = rig.processes[-1]
    process.pid = None
    closing = asyncio.create_task(rig.supervisor.close(3600, str))
    while not process.causes:
        await asyncio.sleep(0)
    process.ended(None, "")
    await closing
    assert rig.ends[-1].then is Then.CLOSED


async def test_while_a_machine_is_looked_for_tasks_go_elsewhere_and_nothing_is_logged(
    rig: Rig, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting for a machine does not count as a slow start."""
    supervisor = rig.supervisor
    rig.processes[0].ended(-9, "")
    loop.pass_(0.1)
    process = rig.processes[-1]
    process.pid = None
    caplog.clear()
    for _ in range(5):
        loop.pass_(START_PATIENCE)
        supervisor.look_after()
        assert supervisor.avoided
    assert not caplog.text
    process.pid = 12
    loop.pass_(START_PATIENCE / 2)
    supervisor.look_after()
    assert not supervisor.avoided
    loop.pass_(START_PATIENCE)
    supervisor.look_after()
    assert supervisor.avoided
    assert "is not ready after 8 s" in caplog.text


async def test_what_cannot_be_had_is_asked_for_for_ever(rig: Rig, loop: Loop) -> None:
    for _ in range(20):
        rig.processes[-1].shared_end = NOT_HAD
        rig.processes[-1].ended(None, "the node that was chosen is dead")
        loop.pass_(10)
    assert {end.then for end in rig.ends} == {Then.REPLACED}


async def test_a_process_elsewhere_is_named_with_its_node(rig: Rig, loop: Loop) -> None:
    rig.processes[0].ended(-9, "")
    loop.pass_(0.1)
    process = rig.processes[-1]
    process.node, process.pid = "n1", 12
    process.receive([Kind.READY])
    process.ended(-9, "")
    assert rig.ends[-1].story == "worker 0 on node n1 (pid 12) was killed by SIGKILL"
