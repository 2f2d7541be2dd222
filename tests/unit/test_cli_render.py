"""What values look like: JSON, lines for people, and texts made harmless."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from collections.abc import Callable
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import payload
from jobd.cli import outcome, render
from jobd.cli.answers import tell as tell_answers
from jobd.cli.session import Session
from jobd.cli.stream import copy
from jobd.cli.text import (
    counted,
    first_line,
    harmless,
    harmless_json,
    home_shortened,
    one_line,
)
from jobd.cli.undivided import Undivided
from jobd.model.errors import DaemonUnreachable, NotFound
from jobd.model.job import Attempt, ErrorInfo, JobInfo, Usage
from jobd.model.messages import Ended, StatusInfo, WorkerInfo
from jobd.model.options import Policy
from jobd.model.states import EXIT_CODES, State

ERROR = ErrorInfo("ValueError", "no\nand more", "Traceback …\nValueError: no\n")
AT = 1_764_000_000_123_456


def job(**changes: Any) -> JobInfo:
    """Return a job that failed at its second attempt, or one that differs."""
    info = JobInfo(
        id=7,
        uid=bytes(range(16)),
        state=State.FAILED,
        function="mytasks:resize",
        created_at=AT,
        started_at=AT + 1_000_000,
        ended_at=AT + 3_500_000,
        attempt=2,
        crashes=1,
        pid=4242,
        cause="",
        error=ERROR,
        log_bytes=2048,
        args=payload.encode_call(("a.jpg",), {"width": 640}, json=True)[0],
        earlier=[Attempt(7, 1, State.CRASHED, AT, AT + 5, 4241, "SIGSEGV", None, None)],
    )
    return msgspec.structs.replace(info, **changes)


def as_json(value: object) -> Any:
    """Return a value as who reads the JSON gets it."""
    return json.loads(msgspec.json.encode(value))


def ended(state: State, value: object = None, **more: Any) -> Ended:
    """Return a job's end."""
    data = payload.encode(value, lossy=True) if state is State.SUCCEEDED else None
    return Ended(3, state, data, **more)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ErrorInfo("", "its worker died: SIGKILL", ""), "its worker died: SIGKILL"),
        (ErrorInfo("ValueError", "no\nand more", ""), "ValueError: no …"),
        (ErrorInfo("KeyboardInterrupt", "", ""), "KeyboardInterrupt"),
        (None, "by hand"),
    ],
)
def test_why_a_job_ended_is_one_line(error: ErrorInfo | None, why: str) -> None:
    """A crash has no exception's name, and some exceptions say nothing."""
    assert render.reason_text("by hand", error) == why


def test_what_was_said_of_a_job_is_shown_with_where_it_came_from() -> None:
    """And nothing of what is as built in: that would be a page."""
    details = render.job_details(job(policy=Policy(retries=3, origins={"retries": "submit"})))
    rows = {row[0]: row[1] for row in details}
    assert rows["retries"] == "3  (submit)"
    assert "backoff" not in rows


SAID = {
    "timeout": (90.5, "1m30.5s", 90.5),
    "in": (0.25, "250ms", 0.25),
    "max_backoff": (100_000.0, "1d3h46m40s", 100_000.0),
    "mem": (314_572_800, "300 MiB", 314_572_800),
    "at": (1_824_942_600_000_000, "2027-10-31T00:30:00Z", "2027-10-31T00:30:00Z"),
    "queue": ("etl", '"etl"', "etl"),
    "retry_on": (["OSError"], '["OSError"]', ["OSError"]),
    "nice": (5, "5", 5),
}
"""Options: the value that is stored, what people see, what JSON says."""


@pytest.mark.parametrize("name", SAID)
def test_an_option_is_shown_in_the_units_that_people_write(name: str) -> None:
    """And in those of all JSON: seconds, bytes, instants."""
    value, text, plain = SAID[name]
    policy = msgspec.convert({name: value, "origins": {name: "submit"}}, Policy)
    rows = {row[0]: row[1] for row in render.job_details(job(policy=policy))}
    assert rows[name.replace("_", "-")] == f"{text}  (submit)"
    told = as_json(render.job_json(job(policy=policy)))["policy"]
    assert told[name] == {"value": plain, "origin": "submit"}


def test_a_start_that_was_not_said_is_null() -> None:
    """As every instant that is not there."""
    assert as_json(render.policy_json(None))["at"] == {"value": None, "origin": "built in"}


def test_a_list_of_jobs_has_their_names() -> None:
    """For people where there are any, beside the functions; for programs always, and last."""
    jobs = [job(name="nightly\n"), job(id=6)]
    heads, rows = render.jobs_table(jobs, name_last=False)
    assert heads == ("ID", "STATE", "FUNCTION", "NAME", "CREATED", "TOOK", "WHY")
    assert [row[2:4] for row in rows] == [("mytasks:resize", "nightly\\n"), ("mytasks:resize", "")]
    heads, rows = render.jobs_table(jobs[1:], name_last=False)
    assert (heads, rows) == (render.JOB_COLUMNS, [render.job_row(jobs[1])])
    heads, rows = render.jobs_table(jobs, name_last=True)
    assert heads == (*render.JOB_COLUMNS, "NAME")
    assert rows == [
        (*render.job_row(jobs[0]), "nightly\\n"),
        (*render.job_row(jobs[1]), ""),
    ]


def test_what_is_to_be_said_of_an_attempt_is_shown_a_line_each() -> None:
    """The notes of earlier attempts stand under them."""
    past = msgspec.structs.replace(job().earlier[0], notes=("it left a mess",))
    info = job(notes=("one", "two"), earlier=[past])
    rows = [row[1] for row in render.job_details(info) if row[0] == "note"]
    assert rows == ["one", "two", "it left a mess"]
    found = as_json(render.job_json(info))
    assert found["notes"] == ["one", "two"]
    assert found["earlier"][0]["notes"] == ["it left a mess"]


def test_a_job_as_json() -> None:
    """``jobd.job/1``: every name, instants in UTC, counts as numbers."""
    found = as_json(render.job_json(job()))
    assert found.pop("policy")["retries"] == {"value": 0, "origin": "built in"}
    assert found == {
        "schema": "jobd.job/1",
        "id": 7,
        "uid": "000102030405060708090a0b0c0d0e0f",
        "state": "failed",
        "function": "mytasks:resize",
        "queue": "default",
        "name": None,
        "attempts": 2,
        "crashes": 1,
        "created_at": "2025-11-24T16:00:00.123456Z",
        "started_at": "2025-11-24T16:00:01.123456Z",
        "ended_at": "2025-11-24T16:00:03.623456Z",
        "due_at": None,
        "pid": 4242,
        "root": None,
        "cause": None,
        "error": {"type": "ValueError", "message": "no\nand more", "traceback": ERROR.traceback},
        "output_bytes": 2048,
        "usage": None,
        "output_tail": "",
        "progress": None,
        "at_bound": None,
        "waits_for": None,
        "notes": [],
        "args": ["a.jpg"],
        "kwargs": {"width": 640},
        "inputs": [],
        "after": [],
        "enforced": {},
        "earlier": [
            {
                "attempt": 1,
                "state": "crashed",
                "started_at": "2025-11-24T16:00:00.123456Z",
                "ended_at": "2025-11-24T16:00:00.123461Z",
                "pid": 4241,
                "cause": "SIGSEGV",
                "output_bytes": 0,
                "error": None,
                "usage": None,
                "output_tail": "",
                "notes": [],
            }
        ],
    }


def test_what_is_not_known_of_a_job_is_null() -> None:
    """A name stays, and has no value."""
    value = as_json(
        render.job_json(
            job(state=State.QUEUED, started_at=0, ended_at=0, pid=0, error=None, earlier=[])
        )
    )
    assert value["started_at"] is value["ended_at"] is value["pid"] is value["error"] is None
    assert value["earlier"] == []


def test_a_listed_job_has_no_names_for_what_a_listing_does_not_carry() -> None:
    """No arguments is something else than an empty list of them."""
    assert {"args", "kwargs", "earlier"} & set(render.job_json(job(args=None))) == set()


def test_arguments_that_are_no_json_are_null() -> None:
    """What a Python client has pickled is not read here."""
    value = render.job_json(job(args=payload.encode_call(({1, 2},), {})[0]))
    assert value["args"] is value["kwargs"] is None


@pytest.mark.parametrize(
    "value", [None, True, 0, 10**30, 1.5, "text", "", [1, [2]], {"a": None}, "é\x1b"]
)
def test_a_result_as_json(value: object) -> None:
    """``jobd.result/1`` has the value itself."""
    found = as_json(render.result_json(ended(State.SUCCEEDED, value)))
    assert found == {
        "schema": "jobd.result/1",
        "id": 3,
        "state": "succeeded",
        "value": value,
        "cause": None,
        "root": None,
        "error": None,
    }


def test_a_result_that_json_cannot_say_is_its_repr() -> None:
    """The value is null, and ``repr`` tells why."""
    data = payload.encode(1j, shown_as=repr)
    found = as_json(render.result_json(Ended(3, State.SUCCEEDED, data)))
    assert (found["value"], found["repr"]) == (None, "1j")


def test_a_result_of_which_json_says_something_has_a_value() -> None:
    """The same for a Python caller's job and one of the command line's."""
    for lossy in (False, True):
        data = payload.encode({"at": [date(2026, 1, 1)]}, shown_as=repr, lossy=lossy)
        found = as_json(render.result_json(Ended(3, State.SUCCEEDED, data)))
        assert found["value"] == {"at": ["2026-01-01"]}
        assert "repr" not in found


def test_a_failure_as_json() -> None:
    """No value, and the error with its traceback."""
    found = as_json(render.result_json(ended(State.FAILED, error=ERROR)))
    assert (found["state"], found["value"]) == ("failed", None)
    assert found["error"]["type"] == "ValueError"


def test_several_ends_and_answers_as_json() -> None:
    """``jobd.wait/1`` and its kin have one object for each job."""
    waited = as_json(render.ends_json([ended(State.CANCELLED, cause="no need")]))
    assert waited == {
        "schema": "jobd.wait/1",
        "jobs": [{"id": 3, "state": "cancelled", "cause": "no need", "root": None, "error": None}],
    }
    assert render.answers_json("cancel", [(3, "stopping")]) == {
        "schema": "jobd.cancel/1",
        "jobs": [{"id": 3, "answer": "stopping"}],
    }


STATUS = StatusInfo(
    rid=1,
    version="0.1.0",
    pid=4242,
    state_dir="/s",
    socket="/s/client.sock",
    durability="full",
    started_at=AT,
    workers=[
        WorkerInfo(1, "busy", 9, 2048),
        WorkerInfo(2, "idle", 0, 0),
        WorkerInfo(0, "starting", 0, 0),
    ],
    jobs={"queued": 1_000_000, "running": 0},
    rss_bytes=3 * 1024 * 1024,
    trouble=["the disk is full"],
)


def test_the_status_as_json() -> None:
    """``jobd.status/1``: a worker without a job has null."""
    found = as_json(render.status_json(STATUS))
    assert found["schema"] == "jobd.status/1"
    assert found["workers"] == [
        {"pid": 1, "state": "busy", "job": 9, "rss_bytes": 2048},
        {"pid": 2, "state": "idle", "job": None, "rss_bytes": 0},
        {"pid": None, "state": "starting", "job": None, "rss_bytes": 0},
    ]
    assert found["jobs"] == {"queued": 1_000_000, "running": 0}
    assert found["trouble"] == ["the disk is full"]


def test_the_status_for_people() -> None:
    """Counts that are zero are left out; trouble is told."""
    rows = {row[0]: row[1] for row in render.status_details(STATUS, "~/s")}
    assert rows["state in"] == "~/s"
    assert rows["jobs queued"] == "1,000,000"
    assert "jobs running" not in rows
    assert rows["trouble"] == "the disk is full"
    assert render.worker_rows(STATUS)[1] == ("2", "idle", "-", "0 B")
    assert render.worker_rows(STATUS)[2] == ("-", "starting", "-", "0 B")


def test_a_line_of_the_listing() -> None:
    """The columns, the last of them why."""
    assert render.job_row(job()) == (
        "7",
        "failed",
        "mytasks:resize",
        "2025-11-24T16:00:00Z",
        "2.5s",
        "ValueError: no …",
    )
    assert render.job_row(job(started_at=0, error=None))[-2:] == ("-", "")


def test_a_name_cannot_break_the_lines_of_a_listing() -> None:
    """Tabs, newlines and escape sequences are shown as what they are."""
    row = render.job_row(job(function="a\tb\n\x1b[2J", error=ErrorInfo("E\n", "\x1b]0;x\x07", "")))
    assert row[2] == "a\\tb\\n\\x1b[2J"
    assert row[-1] == "E\\n: \\x1b]0;x\\x07"


def test_the_details_of_a_job() -> None:
    """The call as Python would write it, and each earlier attempt."""
    rows = {row[0]: row[1] for row in render.job_details(job())}
    assert rows["call"] == "mytasks:resize('a.jpg', width=640)"
    assert rows["output"] == "2.0 KiB"
    assert rows["attempt 1"] == "crashed 2025-11-24T16:00:00Z after 0.0ms, pid 4241: SIGSEGV"
    assert "cause" not in rows


def test_a_call_of_any_size_is_one_short_line() -> None:
    """A megabyte of arguments is cut, and one that is pickled is not guessed."""
    long = job(args=payload.encode_call(("x" * 1_000_000,), {})[0])
    assert len(render.call_text(long)) == render.SHOWN_CALL_CHARACTERS
    assert render.call_text(job(args=None)) == "mytasks:resize(…)"


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (ended(State.FAILED, error=ERROR), "job 3 failed: ValueError: no …"),
        (ended(State.FAILED, error=ErrorInfo("E", "", "")), "job 3 failed: E"),
        (ended(State.FAILED), "job 3 failed"),
        (ended(State.CRASHED, cause="SIGSEGV"), "job 3 crashed (SIGSEGV)"),
        (ended(State.CANCELLED), "job 3 was cancelled"),
        (ended(State.CANCELLED, cause="no need"), "job 3 was cancelled: no need"),
    ],
)
def test_a_failure_in_one_line(end: Ended, text: str) -> None:
    """Which job, how, and why."""
    assert render.failure_text(end) == text


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0], 0), ([1], 1), ([1, 1], 1), ([0, 1], 8), ([7, 5, 0], 8)]
)
def test_several_jobs_share_an_exit_code_or_get_8(codes: list[int], code: int) -> None:
    """The one table for several jobs."""
    assert render.exit_code(codes) == code


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    """Powers of 1024, as memory is."""
    assert render.bytes_text(count) == text


# -- texts --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 字 😀", "plain é 字 😀"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("over\rwritten", "over\\rwritten"),
        ("\x07\x00\x7f\x9b", "\\x07\\x00\\x7f\\x9b"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\udcff", "\\udcff"),
        ("line\u2028break", "line\\u2028break"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    """By the escape that Python would write; tabs and newlines do no harm."""
    assert harmless(text) == shown


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_comes_through(text: str) -> None:
    """Whatever the text: no control character, and one line where one is asked for."""
    shown = harmless(text)
    assert all(c in "\t\n" or (c.isprintable() or ord(c) > 0x9F) for c in shown)
    assert len(one_line(text).splitlines()) <= 1
    shown.encode()  # no lone surrogate is left
    if text.isprintable():
        assert shown == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_made_harmless_means_the_same(text: str) -> None:
    """The escapes are JSON's own."""
    data = msgspec.json.encode({"value": text}).decode()
    shown = harmless_json(data)
    assert json.loads(shown) == {"value": text}
    assert not any("\x7f" <= c <= "\x9f" for c in shown)


def test_small_texts() -> None:
    """First lines, counts and paths."""
    assert first_line("\n one\ntwo") == "one …"
    assert first_line("one") == "one"
    assert first_line("") == ""
    assert (counted(1, "worker"), counted(1000, "job")) == ("1 worker", "1,000 jobs")
    assert home_shortened("/home/a/x", "/home/a") == "~/x"
    assert home_shortened("/home/a", "/home/a/") == "~"
    assert home_shortened("/home/ab", "/home/a") == "/home/ab"
    assert home_shortened("/x", "/") == "/x"


# -- the two streams ----------------------------------------------------------


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


def on_terminal(write: Callable[[], object]) -> str:
    """What a function writes to stdout when that is a terminal."""
    # Not by a fixture: pytest puts its own stream back before the test is called.
    data = io.BytesIO()
    with contextlib.redirect_stdout(Terminal(data, encoding="utf-8", write_through=True)):
        write()
        return data.getvalue().decode()


def session(**changes: bool) -> Session:
    """Return a session that was asked for these."""
    made = Session()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("usr/lib", "usr/lib"),
        ("two", "two"),
        ("\x1b[2J", "\x1b[2J"),
        (None, "null"),
        (True, "true"),
        (20, "20"),
        ([1, "a"], '[1,"a"]'),
    ],
)
def test_a_value_in_a_pipe(capsys: pytest.CaptureFixture[str], value: object, text: str) -> None:
    """A text as it is, any other value as JSON, nothing on stderr."""
    assert outcome.tell(session(), ended(State.SUCCEEDED, value)) == 0
    assert capsys.readouterr() == (text + "\n", "")


def test_a_repr_comes_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    """The note is on stderr, and not there with --quiet."""
    end = Ended(3, State.SUCCEEDED, payload.encode(1j, shown_as=repr))
    outcome.tell(session(), end)
    note = "jobd: the result is not JSON-able, or too large for that: this is its repr\n"
    assert capsys.readouterr() == ("1j\n", note)
    outcome.tell(session(quiet=True), end)
    assert capsys.readouterr() == ("1j\n", "")


@pytest.mark.parametrize("state", [s for s in State if s >= State.SUCCEEDED])
def test_the_exit_code_mirrors_the_job(capsys: pytest.CaptureFixture[str], state: State) -> None:
    """In every state, with and without JSON; a value only where there is one."""
    assert outcome.tell(session(), ended(state)) == EXIT_CODES[state]
    out, err = capsys.readouterr()
    assert bool(out) == (state is State.SUCCEEDED)
    assert bool(err) == (state is not State.SUCCEEDED)
    assert outcome.tell(session(json=True), ended(state)) == EXIT_CODES[state]
    out, err = capsys.readouterr()
    assert json.loads(out)["state"] == state.name.lower()
    assert err == ""


def test_a_failure_names_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback only with --verbose, the hint not with --quiet."""
    end = ended(State.FAILED, error=ERROR)
    outcome.complain(session(), end)
    line = "job 3 failed: ValueError: no …"
    assert capsys.readouterr().err == f"{line} (see 'jobd logs 3', 'jobd show 3')\n"
    outcome.complain(session(quiet=True), end)
    assert capsys.readouterr().err == f"{line}\n"
    outcome.complain(session(quiet=True, verbose=True), end)
    assert capsys.readouterr().err == f"Traceback …\nValueError: no\n{line}\n"


def test_a_result_that_is_not_kept_any_more() -> None:
    """It has succeeded, and there is nothing to print."""
    with pytest.raises(NotFound, match="the result of job 3 is gone"):
        outcome.tell(session(), Ended(3, State.SUCCEEDED, None))


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong, and what to do next; nothing in it is obeyed by a terminal."""
    error = DaemonUnreachable("no daemon at /tmp/a\nb", "start one with 'jobd start'")
    assert session().fail(error) == 69
    line = "jobd: no daemon at /tmp/a\\nb: start one with 'jobd start'\n"
    assert capsys.readouterr() == ("", line)


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The one value on stdout, and nothing on stderr."""
    assert session(json=True).fail(DaemonUnreachable("no daemon", "start one")) == 69
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "schema": "jobd.error/1",
        "code": 69,
        "error": "unreachable",
        "message": "no daemon",
        "hint": "start one",
    }


@pytest.mark.parametrize("rest", [{}, {"reprs": [1]}])
def test_an_error_after_half_a_value_completes_that(
    capsys: pytest.CaptureFixture[str], rest: dict[str, object]
) -> None:
    """A second value on stdout would be worse than none."""
    at = session(json=True)
    at.write_part(b'{"items":[1', rest)
    at.write_part(b",2", rest)
    assert at.fail(DaemonUnreachable("gone")) == 69
    out, err = capsys.readouterr()
    assert err == ""
    value = json.loads(out)
    assert value.pop("cut_short")["error"] == "unreachable"
    assert value == {"items": [1, 2], **rest}


def test_a_ctrl_c_never_cuts_a_part(capsys: pytest.CaptureFixture[str]) -> None:
    """It comes when that is written; a second one at once, should the reader be stuck."""
    at = session(json=True)
    with pytest.raises(KeyboardInterrupt), Undivided():
        signal.raise_signal(signal.SIGINT)
        at.write_part(b'{"items":[1', {})
    assert capsys.readouterr().out == '{"items":[1'
    with pytest.raises(KeyboardInterrupt):
        cut_twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def cut_twice() -> None:
    """Do not come to the end of a part."""
    with Undivided():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError


def test_a_table_in_a_pipe_is_lines_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    """No heads, no colour, no padding."""
    session().write_table(("ID", "STATE"), [("1", "failed"), ("20", "queued")])
    assert capsys.readouterr().out == "1\tfailed\n20\tqueued\n"


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With heads; markup in a name is text; a long name is cut, not wrapped; NO_COLOR holds."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [("1", "failed", "[red]x[/red] " + "y" * 99)]
    shown = on_terminal(lambda: session().write_table(("ID", "STATE", "WHY"), rows))
    head, row = (line.rstrip() for line in shown.splitlines())
    assert "STATE" in head
    assert "failed" in row
    assert "[red]x[/red] y" in row
    assert row.endswith("…") or "…\x1b" in row
    assert "\x1b[31m" not in row
    assert "\x1b[1;31m" not in row


def test_a_table_on_a_terminal_has_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is what one looks for."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = on_terminal(lambda: session().write_table((), [("state", "failed")]))
    assert "\x1b[1;31mfailed" in shown


def test_a_value_on_a_terminal_is_harmless() -> None:
    """As text and as JSON."""
    end = ended(State.SUCCEEDED, "\x1b[2J\x9b")
    assert on_terminal(lambda: outcome.tell(session(), end)) == "\\x1b[2J\\x9b\n"
    shown = on_terminal(lambda: outcome.tell(session(json=True), end))
    assert "\x9b" not in shown
    assert '"value":"\\u001b[2J\\u009b"' in shown


def test_output_on_a_terminal_is_harmless() -> None:
    """A character may be cut between two pieces; bytes that are none are shown."""
    pieces = [b"caf\xc3", b"\xa9\r\n", b"\x1b[2J\xff", b"\xe2\x82"]
    shown = on_terminal(lambda: copy(session(), iter(pieces)))
    assert shown == "café\n\\x1b[2J\\xff\\xe2\\x82"


def test_output_in_a_pipe_is_byte_for_byte(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Nothing is added and nothing taken away."""
    copy(session(), iter([b"\xff\x1b[2J", b"\r\n\0"]))
    assert capsysbinary.readouterr().out == b"\xff\x1b[2J\r\n\0"


def test_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each job; the exit code tells what was refused."""
    assert tell_answers(session(), "cancel", [(5, "stopping"), (4, "cancelled")]) == 0
    assert capsys.readouterr().out == "4\tcancelled\n5\tstopping\n"
    assert tell_answers(session(quiet=True), "retry", [(4, "has not ended")]) == 3
    assert capsys.readouterr().out == "4\n"
    assert tell_answers(session(), "retry", [(4, "queued again"), (9, "not found")]) == 8
    assert tell_answers(session(), "retry", []) == 0
    assert capsys.readouterr().err == "no jobs\n"


def test_what_an_attempt_used_is_shown_and_its_last_lines_are_harmless() -> None:
    """In the details, for the earlier attempts too; a listing has no output."""
    past = Attempt(7, 1, State.CRASHED, 1, 2, 3, "SIGSEGV", None, None, Usage(1 << 20, 1_500_000))
    past = msgspec.structs.replace(past, tail="\x1b[2J\nend")
    info = msgspec.structs.replace(
        job(), usage=Usage(3 << 20, 20_000), tail="last", earlier=[past], attempt=2
    )
    rows = {row[0]: row[1] for row in render.job_details(info)}
    assert rows["used"] == "20ms of CPU, 3.0 MiB at most"
    assert rows["attempt 1"].endswith("SIGSEGV (1.5s of CPU, 1.0 MiB at most)")
    assert render.last_words(info) == [
        "the last lines of attempt 1:\n\\x1b[2J\nend",
        "the last lines of attempt 2:\nlast",
    ]


def test_by_what_a_limit_is_enforced_stands_beside_it() -> None:
    """With the value, and where that came from."""
    policy = Policy(mem=1 << 20, origins={"mem": "submit"})
    info = msgspec.structs.replace(job(), policy=policy, enforced={"mem": "RLIMIT_DATA"})
    rows = {row[0]: row[1] for row in render.job_details(info)}
    assert rows["mem"] == "1 MiB  (submit), by: RLIMIT_DATA"
