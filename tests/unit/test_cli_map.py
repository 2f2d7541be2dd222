"""``jobd map``: how its words become items, options and settings.

Its half in the daemon is not there yet, so `submit_array` is played here.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from jobd.cli import app
from jobd.cli.commands import map as map_
from jobd.cli.submission import ArraySettings, Source


class Played:
    """What `submit_array` was given."""

    def __init__(self) -> None:
        self.function = ""
        self.items: list[bytes] = []
        self.options: dict[str, Any] = {}
        self.settings = ArraySettings()
        self.check = True
        self.called = 0

    def submit_array(  # the real one's signature
        self,
        _session: object,
        _client: object,
        function: str,
        source: Source,
        options: dict[str, Any],
        settings: ArraySettings,
        *,
        check: bool,
    ) -> int:
        """Read all items."""
        self.called += 1
        self.function, self.settings, self.check = function, settings, check
        self.options = {name: value for name, value in options.items() if value is not None}
        self.items = [data for data, _, _ in source.encoded()]
        return 0


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Played:
    """The command, registered, and no daemon."""
    for name in [name for name in os.environ if name.startswith("JOBD_")]:
        monkeypatch.delenv(name)
    found = Played()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(app.VERBS["Jobs"], "map", "Queue a call for each of many items.")
    monkeypatch.setattr(map_, "submit_array", found.submit_array)
    monkeypatch.setattr("jobd.cli.session.Session.connect", lambda _: contextlib.nullcontext())
    return found


def run(*words: str) -> None:
    """Run a command line that is fine."""
    assert app.run(["map", *words]) == 0


def refusal(capsys: pytest.CaptureFixture[str], played: Played, *words: str) -> str:
    """The error of a command line; nothing was asked of the daemon."""
    assert app.run(["map", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, played.called) == ("", 0)
    return err


def test_lines(played: Played) -> None:
    """Before the arguments that all share; a negative number is one of them."""
    Path("lines").write_text("a\nb c\n")
    run("m:f", "--each-line", "lines", "-5", "width:=[640]")
    assert played.function == "m:f"
    assert played.items == [b'J[["a",-5],{"width":[640]}]', b'J[["b c",-5],{"width":[640]}]']
    assert (played.options, played.settings, played.check) == ({}, ArraySettings(), True)


def test_stdin(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is no option."""
    for option in ("--each-line", "--from-jsonl"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"1\n")))
        run(option, "-", "m:f")
        assert played.items == [b'J[["1"],{}]' if option == "--each-line" else b"J[[1],{}]"]


def test_parameters_and_places(played: Played) -> None:
    """Several options, and some of their combinations."""
    run("m:f", "--param", "a=1,x", "--param", "b:=range(2)", "--only", "1-2", "c=3")
    assert played.items == [b'J[[],{"a":1,"b":1,"c":3}]', b'J[[],{"a":"x","b":0,"c":3}]']
    run("m:f", "--param", "a=1,x", "--raw", "5")
    assert played.items == [b'J[["5"],{"a":"1"}]', b'J[["5"],{"a":"x"}]']


def test_options_and_settings(played: Played) -> None:
    """Those of jobs, and those of all items together."""
    words = ["--max-fails", "0", "--errors", "keep", "--slots", "4", "--wait", "--no-check"]
    words += [
        "--then",
        "m:g",
        "--then-any",
        "m:h",
        "--then-fail",
        "m.k:i.j",
        "--wait-timeout",
        "1m",
    ]
    run(
        "m:f",
        "--array",
        "1-2",
        "--args-json",
        "[0]",
        *words,
        "--retries",
        "3",
        "--argv",
        "-v",
        "-5",
    )
    assert played.items == [b"J[[1,0],{}]", b"J[[2,0],{}]"]
    assert played.options == {"retries": "3", "argv": ("-v", "-5")}
    assert played.settings == ArraySettings(
        max_fails=0,
        errors="keep",
        slots=4,
        then="m:g",
        then_any="m:h",
        then_fail="m.k:i.j",
        wait=True,
        wait_timeout=60.0,
    )
    assert not played.check


ONE = "give one of --each-line, --from-jsonl, --param and --array"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m:f"], f"nothing says where the items come from: {ONE}"),
        (["m:f", "--each-line", ""], "--each-line has an empty value: leave it out, or give one"),
        (
            ["m:f", "--array", "1", "--only", ""],
            "--only has an empty value: leave it out, or give one",
        ),
        (
            ["m:f", "--array", "1", "--each-line", "f"],
            f"--each-line and --array contradict each other: {ONE}",
        ),
        (
            ["m:f", "when=@-", "--each-line", "-"],
            "stdin can be read only once: write it to a file first",
        ),
        (
            ["m:f", "a=1", "--param", "a=1"],
            "the argument a is given twice: a name can have one value only",
        ),
    ],
)
def test_a_slip(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    played: Played,
    words: list[str],
    message: str,
) -> None:
    """It is told in one line."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"1\n")))
    assert refusal(capsys, played, *words) == f"jobd: {message}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--array", "1", "--then", "g", "m:f"],
        ["--array", "1", "f"],
        ["--array", "1", "m:f", "--max-fails", "-1"],
        ["--array", "1", "m:f", "--errors", "ignore"],
        ["--array", "1", "m:f", "--slots", "many"],
        ["--array", "1"],
    ],
    ids=" ".join,
)
def test_a_slip_of_another_kind(
    capsys: pytest.CaptureFixture[str], played: Played, words: list[str]
) -> None:
    """The sentences are those of submit, or of click."""
    assert refusal(capsys, played, *words).startswith("jobd: ")


def test_the_help(capsys: pytest.CaptureFixture[str], played: Played) -> None:
    """Every option is explained, and every line fits."""
    assert app.run(["map", "--help"]) == 0
    out, _ = capsys.readouterr()
    assert [line for line in out.splitlines() if len(line) > 90] == []
    assert "Items, from one of these:\n  --each-line FILE" in out
    assert out.partition("\nExamples:\n")[2].startswith("  ls *.jpg | jobd map")
    for param in map_.command.params:
        if isinstance(param, click.Option):
            assert param.help
            assert param.help[0].isupper() or param.help.startswith("VALUE")
            assert param.help[-1] in ".]"
    assert played.called == 0


PROBE = """
import os, sys
os.environ["JOBD_SOCKET"] = "/nonexistent/jobd.sock"
sys.argv = ["jobd", "map", "m:f", "--array", "1-5", "--only", "2"]
def report(code):
    print("CODE", code, *sorted({heavy} & (set(sys.modules) - before)), file=sys.stderr)
os._exit = report
before = set(sys.modules)
import jobd.cli
for name, known in jobd.cli.UNUSED.items():
    sys.modules.setdefault(name, jobd.cli._Later(name, known))  # as `main` does, which is late here
import jobd.cli.app
jobd.cli.app.VERBS["Jobs"]["map"] = "Queue a call for each of many items."
jobd.cli.main()
"""


def test_it_loads_nothing_heavy() -> None:
    """As submit does not (`test_cli_help` asks that of registered commands)."""
    heavy = {"rich", "pickle", "dataclasses", "dis", "tokenize", "pathlib", "json", "zmq", "socket"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE.format(heavy=heavy)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.stderr.splitlines()[-1].strip() == "CODE 69"
