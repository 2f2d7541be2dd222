"""What jobd's values look like: as JSON values, and as the lines that people read.

The JSON is a promise (docs/cli.md lists it): a name that is there stays and keeps
its meaning.  Instants are ISO 8601 in UTC with a ``Z``, durations seconds, and what
is not known is ``null``.  Nothing here does I/O; texts for people are one line each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from jobd import payload
from jobd.cli.durations import show_duration, spell_duration
from jobd.cli.text import counted, first_line, harmless, one_line
from jobd.model import edges
from jobd.model.edges import When
from jobd.model.environment import decoded
from jobd.model.item import FIRST_ITEM, shown
from jobd.model.job import AtBound, Attempt, ErrorInfo, JobInfo, Progress, Usage
from jobd.model.messages import Ended, StatusInfo
from jobd.model.options import BUILT_IN, OPTIONS, Policy
from jobd.model.queues import QueueInfo
from jobd.model.states import BY_NAME, ENDED, NAMES, State

Row = tuple[str, ...]

SHOWN_CALL_CHARACTERS = 300
MOST_VARIABLES = 30

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# -- JSON ---------------------------------------------------------------------


def instant(at_us: int) -> datetime | None:
    """Return an instant (microseconds since 1970; 0: none) as JSON takes it."""
    return _EPOCH + timedelta(microseconds=at_us) if at_us else None


def error_json(error: ErrorInfo | None) -> dict[str, str] | None:
    """Return what ended a job, or None."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def progress_json(progress: Progress | None) -> dict[str, Any] | None:
    """Return how far a running job says that it is, or None."""
    if progress is None:
        return None
    return {"done": progress.done, "total": progress.total, "text": progress.text}


def at_bound_json(at_bound: AtBound | None) -> dict[str, int] | None:
    """Return the stream at its bound that a job waits for, or None."""
    return None if at_bound is None else {"job": at_bound.job, "bound": at_bound.bound}


def job_json(info: JobInfo) -> dict[str, Any]:
    """Return a job: ``jobd.job/1``.

    A listing carries no arguments and no earlier attempts; their names are missing then.
    """
    value: dict[str, Any] = {
        "schema": "jobd.job/1",
        "id": id_json(info.id),
        "uid": info.uid.hex(),
        "state": NAMES[info.state],
        "function": info.function,
        "queue": info.queue,
        "name": info.name or None,
        "attempts": info.attempt,
        "crashes": info.crashes,
        "created_at": instant(info.created_at),
        "started_at": instant(info.started_at),
        "ended_at": instant(info.ended_at),
        "due_at": instant(info.due_at),
        "pid": info.pid or None,
        "cause": info.cause or None,
        "root": info.root or None,
        "error": error_json(info.error),
        "output_bytes": info.log_bytes,
        "usage": usage_json(info.usage),
        "progress": progress_json(info.progress),
        "at_bound": at_bound_json(info.at_bound),
        "waits_for": info.waits_for or None,
        "notes": info.notes,
    }
    if info.array is not None:
        value["items"] = {
            "total": info.array.spec.items,
            "states": info.array.states,
            "first_failure": id_json(info.array.first_failure) or None,
            "max_fails": info.array.spec.max_fails,
            "errors": str(info.array.spec.errors),
            "slots": info.array.spec.slots or None,
        }
    if info.args is not None:
        value["args"], value["kwargs"] = call_of(info)
        value["inputs"] = info.inputs
        value["after"] = after_json(info)
        value["output_tail"] = info.tail
        value["earlier"] = [attempt_json(attempt) for attempt in info.earlier]
        value["policy"] = policy_json(info.policy)
        value["enforced"] = info.enforced
    return value


def after_json(info: JobInfo) -> list[dict[str, Any]]:
    """Return the jobs that a job comes after: its inputs and others, and what each has to come to."""
    inputs = set(info.inputs)
    return [
        {"id": number, "when": edges.NAMES[when], "value": number in inputs}
        for number, when in edges.joined(info.inputs, info.after).items()
    ]


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt that was not the job's last word."""
    return {
        "attempt": attempt.number,
        "state": NAMES[attempt.state],
        "started_at": instant(attempt.started_at),
        "ended_at": instant(attempt.ended_at),
        "pid": attempt.pid or None,
        "cause": attempt.cause or None,
        "output_bytes": attempt.log.end - attempt.log.start if attempt.log else 0,
        "error": error_json(attempt.error),
        "usage": usage_json(attempt.usage),
        "output_tail": attempt.tail,
        "notes": attempt.notes,
    }


def usage_json(usage: Usage | None) -> dict[str, Any] | None:
    """Return what an attempt has used; None: it was too short to be measured."""
    if usage is None:
        return None
    return {"max_rss_bytes": usage.max_rss_bytes, "cpu_s": usage.cpu_us / 1e6}


def policy_json(policy: Policy | None) -> dict[str, Any]:
    """Return each option that holds for a job, and where its value came from.

    Durations are in seconds, sizes in bytes, instants as everywhere.
    """
    return {
        name: {"value": instant(value) if _kind_of(name) == "INSTANT" else value, "origin": origin}
        for name, value, origin in _policy_of(policy)
    }


def _policy_of(policy: Policy | None) -> Iterator[tuple[str, Any, str]]:
    """Yield the name, the value and the origin of each option."""
    held = policy or BUILT_IN
    for field in msgspec.structs.fields(Policy):
        if field.name != "origins":
            name = field.encode_name
            value = decoded(held.env) if name == "env" else getattr(held, field.name)
            yield name, value, held.origins.get(name, "built in")


def _kind_of(name: str) -> str:
    """Return what a value of an option is, as the help has it: ``DURATION``, ``SIZE`` and so on."""
    return OPTIONS[name].metavar


def result_json(ended: Ended) -> dict[str, Any]:
    """Return what came of a job: ``jobd.result/1``.

    A value that JSON cannot say is ``null``, and ``repr`` has its text.
    """
    value: dict[str, Any] = {
        "schema": "jobd.result/1",
        "id": id_json(ended.id),
        "state": NAMES[ended.state],
        "value": None,
        "cause": ended.cause or None,
        "root": ended.root or None,
        "error": error_json(ended.error),
    }
    if ended.state is State.SUCCEEDED and ended.value is not None:
        text, is_json = payload.shown(ended.value)
        value["value" if is_json else "repr"] = msgspec.Raw(text.encode()) if is_json else text
    return value


def ends_json(ends: Iterable[Ended]) -> dict[str, Any]:
    """Return how several jobs ended: ``jobd.wait/1``."""
    jobs = [
        {
            "id": id_json(ended.id),
            "state": NAMES[ended.state],
            "cause": ended.cause or None,
            "root": ended.root or None,
            "error": error_json(ended.error),
        }
        for ended in ends
    ]
    return {"schema": "jobd.wait/1", "jobs": jobs}


def answers_json(
    verb: str, answers: Iterable[tuple[int, str]], ends: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """Return what became of each job of ``cancel`` or ``retry``; ``state`` of those waited for."""
    jobs = [
        {"id": id_json(number), "answer": answer}
        | ({"state": ends[number]} if ends and number in ends else {})
        for number, answer in answers
    ]
    return {"schema": f"jobd.{verb}/1", "jobs": jobs}


def queue_json(info: QueueInfo) -> dict[str, Any]:
    """Return a queue: ``jobd.queue/1``."""
    return {
        "schema": "jobd.queue/1",
        "name": info.name,
        "paused": info.paused,
        "slots": info.slots or None,
        "rate": info.rate or None,
        "running": info.running,
        "waiting": info.waiting,
        "origins": info.origins,
    }


def status_json(status: StatusInfo) -> dict[str, Any]:
    """Return how the daemon is: ``jobd.status/1``."""
    return {
        "schema": "jobd.status/1",
        "version": status.version,
        "pid": status.pid,
        "state_dir": status.state_dir,
        "socket": status.socket,
        "durability": status.durability,
        "started_at": instant(status.started_at),
        "rss_bytes": status.rss_bytes,
        "workers": [
            {
                "pid": worker.pid or None,
                "state": worker.state,
                "job": id_json(worker.job) or None,
                "rss_bytes": worker.rss_bytes,
            }
            for worker in status.workers
        ],
        "jobs": status.jobs,
        "trouble": status.trouble,
    }


# -- for people ---------------------------------------------------------------


def call_of(info: JobInfo) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Return a call's arguments by position and by name; None where JSON cannot say them."""
    call = None if info.args is None else payload.shown_call(info.args, info.inputs)
    return call or (None, None)


def call_text(info: JobInfo) -> str:
    """Return a job's call as Python would write it: ``math:factorial(20)``."""
    args, kwargs = call_of(info)
    if args is None or kwargs is None:
        return one_line(f"{info.function}(…)")
    shown = [repr(value) for value in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
    text = one_line(f"{info.function}({', '.join(shown)})")
    return text if len(text) <= SHOWN_CALL_CHARACTERS else text[: SHOWN_CALL_CHARACTERS - 1] + "…"


def instant_text(at_us: int) -> str:
    """Return an instant to the second, as in JSON; "-" for none."""
    at = instant(at_us)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else "-"


def took_text(info: JobInfo) -> str:
    """Return how long a job took, or has taken so far; "-" if it has not started."""
    if not info.started_at:
        return "-"
    until_us = info.ended_at or time.time_ns() // 1000
    return show_duration(max(0, until_us - info.started_at) / 1e6)


def reason_text(cause: str, error: ErrorInfo | None) -> str:
    """Return why a job ended as it did, in one line; "" if there is nothing to say."""
    if error is None:
        return one_line(cause)
    parts = (one_line(error.type), first_line(error.message))  # a crash has no type
    return ": ".join(part for part in parts if part)


def progress_text(progress: Progress | None) -> str:
    """Return how far a job is, in one line: ``40% (4 of 10) resizing``; "" if it has not said."""
    if progress is None:
        return ""
    done = f"{progress.done:,g}"
    if progress.total is not None:
        done = f"{done} of {progress.total:,g}"
        if progress.total > 0:
            done = f"{progress.done / progress.total:.0%} ({done})"
    return one_line(f"{done} {progress.text}".rstrip())


def at_bound_text(number: int, at_bound: AtBound) -> str:
    """Return what a job waits for that waits for somebody to consume a stream."""
    where = "" if at_bound.job == number else f"for job {at_bound.job}, which waits "
    consume = f"'jobd follow {at_bound.job}' consumes them"
    return f"waits {where}at its bound of {counted(at_bound.bound, 'item')}: {consume}"


def bytes_text(count: int) -> str:
    """Return a size as people read it: ``512 B``, ``1.5 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


JOB_COLUMNS = ("ID", "STATE", "FUNCTION", "CREATED", "TOOK", "WHY")
_AFTER_FUNCTION = JOB_COLUMNS.index("FUNCTION") + 1


def jobs_table(jobs: Sequence[JobInfo], *, name_last: bool) -> tuple[Row, list[Row]]:
    """Return the heads and lines of ``ls``.

    Where people look there is a column for names if there are names, beside that of the functions.
    Where programs read it is always there, and the last: the others have been where they are.
    """
    names = [one_line(info.name) for info in jobs]
    rows = [job_row(info) for info in jobs]
    if not name_last and not any(names):
        return JOB_COLUMNS, rows
    place = len(JOB_COLUMNS) if name_last else _AFTER_FUNCTION
    return (*JOB_COLUMNS[:place], "NAME", *JOB_COLUMNS[place:]), [
        (*row[:place], name, *row[place:]) for row, name in zip(rows, names, strict=True)
    ]


def job_row(info: JobInfo) -> Row:
    """Return a job as a line of ``ls``."""
    return (
        shown(info.id),
        NAMES[info.state],
        one_line(info.function),
        instant_text(info.created_at),
        took_text(info),
        progress_text(info.progress) or reason_text(info.cause, info.error) or _items_text(info),
    )


def _items_text(info: JobInfo) -> str:
    """Return how many items an array has, and how many of them have ended."""
    if info.array is None:
        return ""
    done = sum(n for name, n in info.array.states.items() if BY_NAME[name] >= ENDED)
    items = counted(info.array.spec.items, "item")
    return items if info.state >= ENDED else f"{done:,} of {items}"


def job_details(info: JobInfo) -> list[Row]:
    """Return all of a job but its traceback, as names and values; what is not known is left out."""
    rows: list[Row] = [
        ("job", shown(info.id)),
        ("state", NAMES[info.state]),
        ("call", call_text(info)),
        ("created", instant_text(info.created_at)),
        ("started", instant_text(info.started_at)),
        ("ended", instant_text(info.ended_at)),
        ("starts" if info.state is State.SCHEDULED else "expires", instant_text(info.due_at)),
        ("took", took_text(info)),
        ("attempts", str(info.attempt)),
        ("crashes", str(info.crashes or "")),
        ("pid", str(info.pid or "")),
        ("cause", one_line(info.cause)),
        ("root", str(info.root or "")),
        *after_rows(info),
        ("error", reason_text("", info.error)),
        *(("items", line) for line in array_lines(info)),
        ("progress", progress_text(info.progress)),
        ("note", at_bound_text(info.id, info.at_bound) if info.at_bound else ""),
        *(("note", one_line(note)) for note in info.notes),
        ("waits for", info.waits_for),
        ("used", usage_text(info.usage)),
        ("output", bytes_text(info.log_bytes) if info.log_bytes else ""),
        ("uid", info.uid.hex()),
    ]
    if info.policy is not None:
        rows += [
            (name.replace("_", "-"), _option_text(name, value, origin, info.enforced.get(name, "")))
            for name, value, origin in _policy_of(info.policy)
            if origin != "built in" and name != "env"
        ]
        rows += variable_rows(decoded(info.policy.env), inherits=bool(info.policy.inherit_env))
    for earlier in info.earlier:
        rows.append((f"attempt {earlier.number}", _attempt_text(earlier)))
        rows += [("note", one_line(note)) for note in earlier.notes]
    return [row for row in rows if row[1] not in ("", "-")]


def array_lines(info: JobInfo) -> list[str]:
    """Return how the items of an array are, in a line or two."""
    array = info.array
    if array is None:
        return []
    states = ", ".join(f"{count:,} {name}" for name, count in array.states.items())
    lines = [f"{array.spec.items:,}: {states}" if states else "none"]
    if array.first_failure:
        lines.append(f"the first that has not succeeded: {shown(array.first_failure)}")
    return lines


def id_json(number: int) -> int | str:
    """Return a job's number; of an item the text that people write: ``"7/3"``."""
    return number if number < FIRST_ITEM else shown(number)


def after_rows(info: JobInfo) -> list[Row]:
    """Return the jobs that a job comes after, one line for each kind."""
    lines: dict[When, list[str]] = {when: [] for when in When}
    inputs = set(info.inputs)
    for number, when in edges.joined(info.inputs, info.after).items():
        lines[when].append(f"{number} (value)" if number in inputs else str(number))
    words = {when: word.replace("_", " ") for word, when in edges.OPTIONS.items()}
    return [(words[when], ", ".join(texts)) for when, texts in lines.items() if texts]


def variable_rows(variables: Mapping[str, str], *, inherits: bool) -> list[Row]:
    """Return a job's variables: a few one by one, of many the names; secrets are masked already."""
    if not variables:
        return []
    if not inherits and len(variables) <= MOST_VARIABLES:
        return [("env", one_line(f"{name}={value}")) for name, value in variables.items()]
    names = ", ".join(variables)
    if len(names) > SHOWN_CALL_CHARACTERS:
        names = names[: SHOWN_CALL_CHARACTERS - 1] + "…"
    return [("env", one_line(f"{counted(len(variables), 'variable')} (--json has them): {names}"))]


def _option_text(name: str, value: Any, origin: str, means: str) -> str:
    text = f"{option_text(name, value)}  ({origin})"
    return f"{text}, by: {means}" if means else text


def option_text(name: str, value: Any) -> str:
    """Return the value of an option as people read it: ``1m30s``, ``300 MiB``, an instant."""
    match _kind_of(name):
        case "DURATION" if value is not None:
            return spell_duration(value)
        case "SIZE":
            return bytes_text(value).replace(".0 ", " ")
        case "INSTANT":
            return instant_text(value)
    return setting_text(value)


def _attempt_text(attempt: Attempt) -> str:
    reason = reason_text(attempt.cause, attempt.error)
    ended = f"{NAMES[attempt.state]} {instant_text(attempt.ended_at)}"
    if attempt.started_at:
        ended += f" after {show_duration(max(0, attempt.ended_at - attempt.started_at) / 1e6)}"
    if attempt.pid:
        ended += f", pid {attempt.pid}"
    used = usage_text(attempt.usage)
    text = f"{ended}: {reason}" if reason else ended
    return f"{text} ({used})" if used else text


def usage_text(usage: Usage | None) -> str:
    """Return what an attempt has used: ``1.2 s of CPU, 30.1 MiB at most``."""
    if usage is None:
        return ""
    return f"{show_duration(usage.cpu_us / 1e6)} of CPU, {bytes_text(usage.max_rss_bytes)} at most"


def last_words(info: JobInfo) -> list[str]:
    """Return the last lines of each attempt's output, each block under a title."""
    tails = [(past.number, past.tail) for past in info.earlier]
    if info.tail:
        tails.append((info.attempt, info.tail))
    return [
        f"the last lines of attempt {number}:\n{harmless(tail)}" for number, tail in tails if tail
    ]


def status_details(status: StatusInfo, home_shortened_dir: str) -> list[Row]:
    """Return how the daemon is, as names and values."""
    up_s = max(0.0, time.time() - status.started_at / 1e6)
    rows: list[Row] = [
        ("jobd", f"{status.version}, pid {status.pid}, up {show_duration(up_s)}"),
        ("state in", home_shortened_dir),
        ("socket", one_line(status.socket)),
        ("durability", status.durability),
        ("memory", bytes_text(status.rss_bytes)),
    ]
    rows += [(f"jobs {name}", f"{count:,}") for name, count in status.jobs.items() if count]
    return rows + [("trouble", one_line(sentence)) for sentence in status.trouble]


WORKER_COLUMNS = ("WORKER", "STATE", "JOB", "MEMORY")


def worker_rows(status: StatusInfo) -> list[Row]:
    """Return the workers as lines."""
    return [
        (str(w.pid or "-"), w.state, str(w.job or "-"), bytes_text(w.rss_bytes))
        for w in status.workers
    ]


QUEUE_COLUMNS = ("QUEUE", "STATE", "SLOTS", "RATE", "RUNNING", "WAITING", "FROM")


def queue_row(info: QueueInfo) -> Row:
    """Return a queue as a line of ``queue ls``."""
    return (
        one_line(info.name),
        "paused" if info.paused else "open",
        str(info.slots or "-"),
        info.rate or "-",
        f"{info.running}",
        f"{info.waiting}",
        _origins_text(info.origins),
    )


def _origins_text(origins: dict[str, str]) -> str:
    """Return where a queue comes from, and those of its rules that come from elsewhere."""
    home = origins["name"]
    others = [
        f"{key}: {origin}" for key, origin in origins.items() if origin not in (home, "built in")
    ]
    return one_line(", ".join([home, *others]))


def setting_text(value: object) -> str:
    """Return the value of a setting as ``jobd.toml`` would have it."""
    return one_line(msgspec.json.encode(value).decode())


def failure_text(ended: Ended) -> str:
    """Return how a job ended that did not succeed: ``job 3 failed: ValueError: no``."""
    reason = reason_text(ended.cause, ended.error)
    match ended.state:
        case State.CANCELLED:
            return f"job {shown(ended.id)} was cancelled" + (f": {reason}" if reason else "")
        case State.EXPIRED:
            return f"job {shown(ended.id)} has expired: it had not started in time"
        case State.ABORTED:
            return f"job {shown(ended.id)} was aborted: {one_line(ended.cause)}"
        case State.CRASHED:
            cause = one_line(ended.cause)
            return f"job {shown(ended.id)} crashed" + (f" ({cause})" if cause else "")
        case State.TIMED_OUT:
            return f"job {shown(ended.id)} timed out ({one_line(ended.cause)})"
        case _:
            return f"job {shown(ended.id)} {NAMES[ended.state]}" + (f": {reason}" if reason else "")


def exit_code(codes: Sequence[int]) -> int:
    """Return the exit code for several jobs: the one they share, or 8."""
    several = set(codes)
    return several.pop() if len(several) == 1 else 8 if several else 0
