"""Lists the tasks of a link for `Manager.tasks`, a page or a slice at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from .._scheduling.clock import to_datetime
from .._scheduling.engine import Engine
from .._scheduling.pace import MAX_SLICE
from .._transport import wire
from .._transport.entry import Entry as SentEntry
from ..inspection import TaskInfo, Wanted
from ..task import State, TaskRef
from .book import Book
from .localentry import Entry, attempt_of, name_of, start_of


def list_book(
    book: Book,
    wanted: Wanted,
    ids: Mapping[int, str],
    name_task: Callable[[int, SentEntry], str],
    ref: Callable[[int, int], TaskRef],
    timed: bool,
) -> Iterator[list[TaskInfo]]:
    """Yield information on the tasks of a worker, a page at a time.

    Args:
        book: The tasks; all are in its ledger.
        wanted: The tasks to list.
        ids: The ids of tasks, by number.
        name_task: Return the name of a task.
        ref: Return its reference, given scheduler and number.
        timed: Whether tasks have due times.
    """
    ledger = book.ledger
    for page in ledger.pages():
        some: Sequence[int] = page
        if wanted.id_prefix is not None:
            some = [number for number in some if wanted.has_id(ids.get(number))]
        if wanted.state is not None:
            some = [number for number in some if ledger.state(number) is wanted.state]
        infos = []
        for number, entry in book.read(some).items() if some else ():
            name, state = name_task(number, entry), book.state(number)
            if wanted.name is not None and name != wanted.name:
                continue
            due = to_datetime(entry.due) if timed and state is State.PENDING else None
            where, attempt = ref(entry.scheduler, number), wire.read_record(entry.record).attempt
            infos.append(
                TaskInfo(
                    *(where, name, ids.get(number), state, due, attempt),
                    *(where.worker, where.scheduler),
                )
            )
        yield infos


def list_engines(
    engines: Sequence[Engine[Entry]],
    wanted: Wanted,
    ids: Mapping[int, str],
    ref: Callable[[int, int], TaskRef | None],
) -> Iterator[list[TaskInfo]]:
    """Yield information on the tasks in this loop, a slice at a time.

    Args:
        engines: The engines that have the tasks.
        wanted: The tasks to list.
        ids: The ids of tasks, by number.
        ref: Return the reference of a task, given scheduler and number.
    """
    for engine in engines:
        for numbers in engine.numbers():
            for start in range(0, len(numbers), MAX_SLICE):
                slice_ = numbers[start : start + MAX_SLICE]
                infos = (_info(engine, number, wanted, ids, ref) for number in slice_)
                yield [info for info in infos if info is not None]


def _info(
    engine: Engine[Entry],
    number: int,
    wanted: Wanted,
    ids: Mapping[int, str],
    ref: Callable[[int, int], TaskRef | None],
) -> TaskInfo | None:
    """Return information on a task, if it is wanted and has not ended."""
    entry, id_ = engine.find(number), ids.get(number)
    if entry is None or not wanted.has_id(id_):
        return None
    name = name_of(entry)
    state = State.PENDING if engine.running.find(number) is None else State.RUNNING
    if wanted.state not in (None, state) or wanted.name not in (None, name):
        return None
    where = ref(engine.index, number)
    assert where is not None  # only a manager lists tasks
    due = start_of(entry) if state is State.PENDING else 0
    start = to_datetime(due) if due else None
    return TaskInfo(where, name, id_, state, start, attempt_of(entry), 0, engine.index)
