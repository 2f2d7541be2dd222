"""The help, the errors of usage, and what a short command loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jobd._version import __version__
from jobd.cli import UNUSED, app
from jobd.cli.commands import config
from jobd.cli.errors import Bug, Interrupted, IoFailed, interrupted
from jobd.model import errors
from jobd.model.states import EXIT_CODES, NAMES

COMMANDS = [name for names in app.VERBS.values() for name in names]
ALL = [[], *([name] for name in COMMANDS), ["config", "show"]]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's settings and daemon out."""
    for name in [name for name in os.environ if name.startswith("JOBD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("JOBD_STATE_DIR", str(tmp_path / "state"))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command line here; return the exit code and what it wrote."""
    code = app.run(words)
    out, err = capsys.readouterr()
    return code, out, err


def ids(words: list[str]) -> str:
    """Name a case."""
    return " ".join(["jobd", *words])


@pytest.mark.parametrize("words", ALL, ids=ids)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help_with_examples(
    capsys: pytest.CaptureFixture[str], words: list[str], option: str
) -> None:
    """What it does, each option in a sentence, and how it is used."""
    code, out, err = run(capsys, *words, option)
    assert (code, err) == (0, "")
    assert out.startswith(" ".join(["Usage: jobd", *words]))
    assert "--json" in out
    _, _, examples = out.partition("\nExamples:\n")
    assert examples.startswith("  ")
    assert "jobd" in examples.splitlines()[0]


@pytest.mark.parametrize("words", ALL[1:], ids=ids)
def test_the_help_fits_a_terminal(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """No line is longer than 90 characters."""
    _, out, _ = run(capsys, *words, "--help")
    assert [line for line in out.splitlines() if len(line) > 90] == []


@pytest.mark.parametrize("words", ALL, ids=ids)
def test_every_option_is_explained(words: list[str]) -> None:
    """In a sentence that begins with a capital and ends with a full stop or its default."""
    command: click.Command = app.jobd
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert {"--help", "--json", "--quiet", "--verbose", "--socket", "--state-dir", "--config"} <= {
        name for option in options for name in option.opts
    }
    for option in options:
        assert option.help
        assert option.help[0].isupper() or option.help.startswith("VALUE")
        assert option.help[-1] in ".]"


def test_each_command_says_in_the_list_what_its_help_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The list is there without loading any command, and must not lie."""
    _, listed, _ = run(capsys, "--help")
    for names in app.VERBS.values():
        for name, text in names.items():
            assert f"{name} " in listed
            assert text.endswith(".")


def test_jobd_alone_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as --help, and no error."""
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    assert out == run(capsys, "--help")[1]
    assert "jobd submit math:factorial 20" in out
    assert "Exit codes:" in out


def test_a_noun_alone_shows_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    """`jobd config` is no error either."""
    assert isinstance(config.command, click.Group)
    code, out, _ = run(capsys, "config")
    assert code == 0
    assert "show" in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """One line."""
    assert run(capsys, "--version") == (0, f"jobd {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sumbit"], "jobd has no command 'sumbit': did you mean 'submit'? See 'jobd --help'"),
        (["zzz"], "jobd has no command 'zzz': see 'jobd --help'"),
        (
            ["config", "shwo"],
            "jobd config has no command 'shwo': did you mean 'show'? See 'jobd config --help'",
        ),
        (
            ["submit", "m:f", "--wiat"],
            "jobd submit has no option --wiat: did you mean --wait? See 'jobd submit --help'",
        ),
        (["ls", "--zzz"], "jobd ls has no option --zzz: see 'jobd ls --help'"),
        (["ls", "-x"], "jobd ls has no option -x: see 'jobd ls --help'"),
        (["submit"], "missing argument 'MODULE:FUNCTION': see 'jobd submit --help'"),
        (["ls", "-n"], "option '-n' requires an argument: see 'jobd ls --help'"),
        (["wait"], "no job is selected: give ids such as 42 or 40-45, or last, or all"),
        (["wait", "x"], "'x' is not a job: give ids such as 42 or 40-45, or last, last:3, all"),
        (
            ["stop", "--now", "--drain"],
            "--drain and --now contradict each other: give one of them",
        ),
    ],
)
def test_a_slip_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """What is wrong, the nearest name, where to look; exit code 2."""
    assert run(capsys, *words) == (2, "", f"jobd: {message}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "sumbit"],
        ["sumbit", "--json"],
        ["ls", "--zzz", "--json"],
        ["ls", "--json", "-n", "x"],
        ["wait", "--json"],
    ],
    ids=ids,
)
def test_a_slip_as_json(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """Wherever --json stands, stdout has one value and stderr nothing."""
    code, out, err = run(capsys, *words)
    assert (code, err) == (2, "")
    error = json.loads(out)
    assert (error["schema"], error["code"], error["error"]) == ("jobd.error/1", 2, "usage")


def test_json_can_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every option can; a verb's own options with the verb's name."""
    monkeypatch.setenv("JOBD_JSON", "1")
    assert json.loads(run(capsys, "ls", "--zzz")[1])["error"] == "usage"
    monkeypatch.setenv("JOBD_LS_LIMIT", "many")
    assert "'many'" in json.loads(run(capsys, "ls")[1])["message"]


def test_options_may_stand_before_the_verb_and_after_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The later one wins."""
    first, second = str(tmp_path / "a.sock"), str(tmp_path / "b.sock")
    expected = (69, "", f"jobd: no daemon at {second}: start one with 'jobd start'\n")
    assert run(capsys, "ping", "--socket", second) == expected
    assert run(capsys, "--socket", second, "ping") == expected
    assert run(capsys, "--socket", first, "ping", "--socket", second) == expected


def test_bad_configuration_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 78, and which file."""
    file = tmp_path / "bad.toml"
    file.write_text("[pool]\nworker = 2\n")
    code, out, err = run(capsys, "ping", "--config", str(file))
    assert (code, out) == (78, "")
    assert err.startswith(f"jobd: {file}: unknown key 'pool.worker': did you mean pool.workers?")


def test_config_show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value and where it came from, as lines and as JSON."""
    monkeypatch.setenv("JOBD_POOL_WORKERS", "7")
    code, out, _ = run(capsys, "config", "show")
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert ["pool.workers", "7", "environment (JOBD_POOL_WORKERS)"] in lines
    assert ["store.durability", '"full"', "default"] in lines
    _, out, _ = run(capsys, "config", "show", "--json")
    shown = json.loads(out)
    assert shown["schema"] == "jobd.config/1"
    assert shown["settings"]["pool.workers"]["value"] == 7
    assert run(capsys, "config", "show", "-q")[1].split() == list(shown["settings"])


def test_a_bug_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is asked for; then one line all the same."""

    def broken(*_: object) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr("jobd.cli.session.Session.connect", broken)
    code, out, err = run(capsys, "ping")
    assert (code, out) == (70, "")
    assert err.startswith("jobd: RuntimeError: oh\\nno: this is a bug in jobd")
    assert err.count("\n") == 1
    _, _, err = run(capsys, "ping", "--verbose")
    assert err.startswith("Traceback")


def test_ctrl_c_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130, and no traceback."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobd.cli.session.Session.connect", interrupted)
    assert run(capsys, "ping") == (130, "", "jobd: interrupted\n")


@pytest.mark.parametrize(
    ("ids_", "submitting", "message"),
    [
        ([], False, "interrupted"),
        ([], True, "interrupted: the job may have been queued (see 'jobd ls')"),
        ([3], False, "detached: job 3 goes on ('jobd result --wait 3' waits for it, "),
        ([3, 4], False, "detached: the 2 jobs go on ('jobd wait' waits again)"),
    ],
)
def test_ctrl_c_says_what_goes_on(ids_: list[int], submitting: bool, message: str) -> None:  # noqa: FBT001  # a case
    """Which jobs, and how to come back to them."""
    assert str(interrupted(ids_, submitting=submitting)).startswith(message)


def test_the_reference_knows_every_command_code_and_error() -> None:
    """docs/cli.md is written by hand, and must not fall behind."""
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = {error.code for error in errors.BY_NAME.values()} | set(EXIT_CODES.values())
    assert [name for name in COMMANDS if name not in text] == []
    assert [code for code in codes if f"| {code} |" not in text] == []
    assert [state for state in NAMES.values() if f"| `{state}` |" not in text] == []
    told = [e for e in errors.BY_NAME.values() if not issubclass(e, errors.JobError)]
    told += [Bug, Interrupted, IoFailed]
    assert [e.error for e in told if e is not errors.JobdError and f"`{e.error}`" not in text] == []


def in_a_process(program: str) -> str:
    """What a fresh Python prints on stderr for a program."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )
    return done.stderr.strip()


HEAVY = [
    *("rich", "pickle", "_pickle", "zmq", "asyncio", "sqlite3", "ssl", "multiprocessing"),
    *("pathlib", "dataclasses", "logging", "subprocess", "json", "difflib", "tomllib", "locale"),
    *("ast", "dis", "tokenize", "traceback", "email", "argparse", "shutil", "tempfile", "unittest"),
    *("cloudpickle", "socket", "selectors", "jobd.cli.render"),
]

PROBE = """
import atexit, os, sys
os.environ["JOBD_SOCKET"] = "/nonexistent/jobd.sock"
sys.argv = ["jobd", *{words}]
def report(code):
    loaded = set({heavy}) & (set(sys.modules) - before)
    loaded |= {{n for n in jobd.cli.UNUSED if type(sys.modules[n]) is not jobd.cli._Later}}
    print("CODE", code, *sorted(loaded), file=sys.stderr)
os._exit = report
before = set(sys.modules)  # an editable install has loaded a few
import jobd.cli
jobd.cli.main()
"""


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "m:f", "1", "k:=[2]", "--wait"],
        ["result", "1"],
        ["run", "true"],
        ["--version"],
    ],
    ids=ids,
)
def test_a_short_command_loads_nothing_heavy(words: list[str]) -> None:
    """It reaches the socket, all of the client loaded, without what takes long to load."""
    asks_nobody = words == ["--version"]
    heavy = [*HEAVY, "msgspec", "jobd.client"] if asks_nobody else HEAVY
    report = in_a_process(PROBE.format(words=words, heavy=heavy)).splitlines()[-1]
    assert report == ("CODE 0" if asks_nobody else "CODE 69")


def test_help_loads_no_command() -> None:
    """The list of commands is a table."""
    program = (
        "import sys; from jobd.cli.app import run; run(['--help']);"
        "print(*[n for n in sys.modules if n.startswith('jobd.cli.commands')], file=sys.stderr)"
    )
    assert in_a_process(program) == ""


@pytest.mark.parametrize("name", [name for name in UNUSED if name != "typing_extensions"])
def test_what_is_put_off_is_whole_for_whoever_needs_it(name: str) -> None:
    """What stands for a module until then is not noticed, and a daemon does without."""
    program = (
        f"import sys, jobd.cli; name = {name!r};"
        "sys.modules.setdefault('typing_extensions', jobd.cli._Later('typing_extensions',"
        " jobd.cli.UNUSED['typing_extensions']));"
        "later = sys.modules[name] = jobd.cli._Later(name, jobd.cli.UNUSED[name]);"
        "known = {n: getattr(later, n)() for n in jobd.cli.UNUSED[name]};"
        "import click, msgspec; assert sys.modules[name] is later;"
        "assert hasattr(later, 'nothing') is False; module = sys.modules[name];"
        "assert module is not later and vars(later) | vars(module) == vars(later);"
        "assert known == {n: getattr(module, n)() for n in known};"
        "jobd.cli.settle(); print('fine', file=sys.stderr)"
    )
    assert in_a_process(program) == "fine"


@pytest.mark.parametrize("is_installed", [True, False])
def test_typing_extensions_is_not_loaded_for_what_typing_has(*, is_installed: bool) -> None:
    """Where it is installed, msgspec asks it for three names: that took a seventh of a command's time."""
    program = (
        "import sys, typing; from importlib.machinery import PathFinder;"
        f"is_installed = {is_installed};"
        "real = PathFinder.find_spec;"
        "PathFinder.find_spec = lambda name, *more: None"
        " if name == 'typing_extensions' and not is_installed else real(name, *more);"
        "import jobd.cli; name = 'typing_extensions';"
        "later = sys.modules[name] = jobd.cli._Later(name, jobd.cli.UNUSED[name]);"
        "import msgspec, msgspec._utils; assert sys.modules[name] is later;"
        "assert msgspec._utils.Required is typing.Required;"
        "jobd.cli.settle();"
        "assert (name in sys.modules) is is_installed;"
        "assert sys.modules.get(name) is not later;"
        "print('fine', file=sys.stderr)"
    )
    assert in_a_process(program) == "fine"
