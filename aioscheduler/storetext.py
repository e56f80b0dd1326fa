"""The lines that `aioscheduler store` prints about a file. Pure.

A file's texts are untrusted: `show` leaves nothing in them that a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ._durable.offlinerecords import StoreInfo, TaskLine
from ._durable.records import Begun, Letter, headline_of
from ._scheduling.clock import show_span, to_datetime

MOST_GIST = 80  # characters of a text's headline, where the whole text is not shown
MOST_NAME = 40  # the widest column of names
NONE = "-"  # in a column: there is none
ODD = "?"  # in a column: the file has no valid value

_STATES = {Begun.NO: "waits", Begun.YES: "begun", Begun.ONCE: "begun"}


def show(text: str) -> str:
    """Return a text as one line, with unprintable characters escaped as in Python."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def show_lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, each through `show`."""
    for line in text.rstrip().split("\n"):
        yield show(line.removesuffix("\r").expandtabs(4))


def show_time(at: int | None) -> str:
    """Return a time in ISO 8601 and UTC; `NONE` for the 0 of a queue, `ODD` for None."""
    if at is None:
        return ODD
    if not at:
        return NONE
    return to_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_distance(at: int, now: int) -> str:
    """Return how far a time is from now, to one unit: "in 3 d", "2 h ago"."""
    span = show_span(abs(at - now))
    return f"in {span}" if at > now else f"{span} ago"


def show_size(size: int) -> str:
    """Return a number of bytes, to three digits."""
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB" if value < 999.5 else f"{value:,.0f} TB"


def lines_of_info(info: StoreInfo, now: int) -> Iterator[str]:
    """Yield the lines about the file as a whole."""
    log = f", and {show_size(info.log_size)} of log beside it" if info.log_size else ""
    lived = f"{show_time(info.lived)} ({show_distance(info.lived, now)})"
    end = (
        "shut down cleanly"
        if info.clean
        else "did not shut down cleanly: tasks that had begun may run again"
    )
    host = (
        f"lived until {lived}, and {end}"
        if info.had_host
        else f"{end}; when it lived is not known, but the file was written at {lived}"
    )
    yield show(info.path)
    yield f"schema     {info.schema}{', which the next host upgrades' if info.older else ''}"
    yield f"size       {show_size(info.size)}{log}"
    yield f"last host  {host}"


def lines_of_tasks(counts: Mapping[str | None, tuple[int, int | None]], now: int) -> Iterator[str]:
    """Yield the number of tasks of each function, and when its next one is due."""
    yield ""
    yield _count(sum(count for count, _ in counts.values()), "task")
    lines = []
    for name, (count, due) in counts.items():
        when = f"next {show_time(due)} ({show_distance(due, now)})" if due else "queued"
        shown = ODD if name is None else show(name)
        lines.append((due or 0, f"{count:>13,}  {shown}  {ODD if due is None else when}"))
    yield from (line for _, line in sorted(lines))


def lines_of_repeats(number: int, paused: int) -> Iterator[str]:
    """Yield the number of repeats; nothing if there are none."""
    if number:
        yield ""
        yield _count(number, "repeat") + (f", {paused:,} paused" if paused else "")


def lines_of_reasons(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the number of dead letters by reason."""
    yield ""
    yield _count(sum(counts.values()), "dead letter")
    for reason, count in sorted(counts.items()):
        yield f"{count:>13,}  {show(reason)}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def width_of(names: Iterable[str]) -> int:
    """Return the width of a column of names; a longer name shifts the rest of its line."""
    return min(MOST_NAME, max((len(show(name)) for name in names), default=0))


def head_of_tasks(width: int) -> str:
    """Return the heading of the lines of tasks."""
    return f"{'ROW':>11}  {'DUE':24}  ATTEMPT  STATE  {'NAME':{width}}  ID"


def line_of_task(task: TaskLine, width: int) -> str:
    """Return the line of a task."""
    row, attempt = (ODD if each is None else each for each in (task.row, task.attempt))
    state = ODD if task.begun is None else _STATES[task.begun]
    name = ODD if task.name is None else show(task.name)
    id_ = NONE if task.id is None else show(task.id)
    return f"{row:>11}  {show_time(task.due):24}  {attempt:>7}  {state:5}  {name:{width}}  {id_}"


def head_of_letters(width: int) -> str:
    """Return the heading of the lines of dead letters."""
    return f"{'ROW':>11}  {'SINCE':24}  {'REASON':10}  ATTEMPTS  {'NAME':{width}}  ID"


def lines_of_letter(letter: Letter, width: int, with_text: bool) -> Iterator[str]:
    """Yield the lines of a dead letter, with its text or only the headline of that."""
    name = show(letter.name) or ODD
    id_ = NONE if letter.id is None else show(letter.id)
    gist = headline_of(letter.text).strip()
    if with_text or not gist:
        end = ""
    else:
        end = f"  {show(gist if len(gist) <= MOST_GIST else gist[: MOST_GIST - 1] + '…')}"
    yield (
        f"{letter.row:>11}  {show_time(letter.at):24}  {letter.reason.value:10}  "
        f"{letter.attempt:>8}  {name:{width}}  {id_}{end}"
    )
    if with_text:
        yield f"    due {show_time(letter.due)}"
        yield from (f"    {line}" for line in show_lines(letter.text))
