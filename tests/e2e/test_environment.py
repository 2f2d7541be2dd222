"""Programs as jobs, and the caller's world: sys.argv, exits, variables, directories."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import DaemonUnderTest, eventually

import jobd
import jobd.testing
from jobd.client import Client

Make = Callable[..., DaemonUnderTest]
Connect = Callable[..., Client]

SECRET = "hunter2"  # noqa: S105  # as good as any


def printed(daemon: DaemonUnderTest, *words: str, **more: Any) -> str:
    """Run a command line that succeeds; return what it wrote."""
    done = daemon.cli(*words, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output(daemon: DaemonUnderTest) -> str:
    """Return what the newest job wrote."""
    return printed(daemon, "logs", "last")


# -- programs --


def test_a_program_has_its_name_and_nothing_else_in_argv(shared: DaemonUnderTest) -> None:
    """What argparse reads is not the worker's command line."""
    assert printed(shared, "submit", "--wait", "programs:argv") == '["programs:argv"]'
    assert printed(shared, "submit", "--wait", "programs:main") == "null"
    assert output(shared) == "[] False"


def test_a_program_is_given_a_command_line(shared: DaemonUnderTest) -> None:
    """All that follows --argv, options of jobd's too; or --argv=WORD, again for more."""
    words = ("--verbose", "--", "a", "-5", "b c")
    assert printed(shared, "submit", "--wait", "programs:main", "--argv", *words) == "null"
    assert output(shared) == "['a', '-5', 'b c'] True"
    again = ("--argv=a", "--argv=--wait")
    assert printed(shared, "submit", "--wait", *again, "programs:argv") == json.dumps(
        ["programs:argv", "a", "--wait"], separators=(",", ":")
    )
    assert json.loads(printed(shared, "submit", "programs:argv", "--wait", "--argv")) == [
        "programs:argv"
    ]


def test_argv_before_the_function_takes_it(shared: DaemonUnderTest) -> None:
    """And it is said what has become of it."""
    refused = shared.cli("submit", "--argv", "--verbose", "programs:main")
    assert refused.returncode == 2
    assert refused.stderr == (
        "jobd: no function stands before --argv, which takes all that follows: '--verbose' too: "
        "write MODULE:FUNCTION, and jobd's own options, before it\n"
    )
    none_at_all = shared.cli("submit")
    assert "missing argument 'MODULE:FUNCTION'" in none_at_all.stderr


def test_a_click_program(shared: DaemonUnderTest) -> None:
    """It exits by itself, with 0; its help names it."""
    words = ("submit", "--wait", "programs:clicked", "--argv")
    assert printed(shared, *words, "two", "words") == "null"
    assert output(shared) == "two words"
    assert printed(shared, *words, "--help") == "null"
    assert output(shared).startswith("Usage: programs:clicked [OPTIONS] [WORDS]...")
    failed = shared.cli(*words, "--fail")
    assert (failed.returncode, "SystemExit: 1" in failed.stderr) == (1, True)
    assert "Error: as asked for" in output(shared)
    refused = shared.cli(*words, "--nope")
    assert (refused.returncode, "SystemExit: 2" in refused.stderr) == (1, True)


def test_argv_is_put_back_for_the_next_job(make_daemon: Make) -> None:
    """Whatever the last one has done to it, in the same worker."""
    client = make_daemon(pool__workers=1).start().client()
    client.submit("programs:spoil_argv").result()
    assert client.submit("programs:argv").result() == ["programs:argv"]
    with_words = client.options(argv=["-x"])
    assert with_words.submit("programs:argv").result() == ["programs:argv", "-x"]
    assert client.submit("programs:argv").result() == ["programs:argv"]
    assert client.submit(lambda: sys.argv).result()[0].endswith("<lambda>")


@pytest.mark.parametrize("code", [None, 0])
def test_a_program_that_exits_without_an_error_has_succeeded(
    shared: DaemonUnderTest, connect: Connect, code: int | None
) -> None:
    """Its result is null, to whoever asks, and to a job that has it as an argument."""
    client = connect(shared.socket)
    job = client.submit("programs:exit_with", code)
    assert job.result() is None
    assert job.state == "succeeded"
    assert client.submit(repr, job).result() == "None"
    assert printed(shared, "result", str(job.id)) == "null"
    told = json.loads(printed(shared, "result", str(job.id), "--json"))
    assert (told["state"], told["value"], told["error"]) == ("succeeded", None, None)
    client.close()


@pytest.mark.parametrize("code", [1, 3, "so long", False, 2**70])
def test_any_other_exit_is_a_failure_that_tells_the_code(
    shared: DaemonUnderTest, code: object
) -> None:
    """`False` is none that a shell would see as 0 by itself, so it is not guessed at."""
    with shared.client() as client, pytest.raises(jobd.JobFailed) as caught:
        client.submit("programs:exit_with", code).result()
    assert (caught.value.type, caught.value.message.endswith(f"SystemExit: {code}")) == (
        "SystemExit",
        True,
    )


def test_an_executor_raises_every_exit(shared: DaemonUnderTest) -> None:
    """As the standard library's does, in `map` and in chunks too."""

    def exit_here(code: object) -> None:
        raise SystemExit(code)

    with jobd.Executor(socket=shared.socket) as executor:
        for code in (None, 0, 3):
            error = executor.submit(exit_here, code).exception(timeout=30)
            assert type(error) is SystemExit
            assert error.code == code
            assert "in exit_here" in str(error.__cause__)
        assert executor.submit(time.tzset).result(timeout=30) is None
        for size in (1, 2):
            with pytest.raises(SystemExit):
                list(executor.map(exit_here, [0, 0], chunksize=size))


# -- the caller's environment --


def test_a_command_has_its_callers_variables(shared: DaemonUnderTest) -> None:
    """And none that he has not; but it finds the daemon that runs it, whatever he says."""
    run = ("run", "--wait", "--", "sh", "-c")
    assert printed(shared, *run, "echo $FOO", FOO="bar") == "bar"
    assert printed(shared, *run, "echo $FOO-") == "-"
    assert printed(shared, *run, "echo $PWD", cwd=Path("/usr")) == "/usr"
    words = (
        "--socket",
        shared.socket,
        *run,
        "echo $JOBD_SOCKET; jobd submit --wait math:factorial 4",
    )
    path = f"{Path(jobd.__file__).parents[1]}/.venv/bin:/usr/bin:/bin"
    assert printed(shared, *words, JOBD_SOCKET="/elsewhere", PATH=path).split() == [
        shared.socket,
        "24",
    ]


def test_a_command_may_go_without_them(make_daemon: Make) -> None:
    """Then it has the daemon's; so it has what the settings do not let through."""
    daemon = make_daemon(environment__inherit="*,!HIDDEN*").start(FOO="daemon", HIDDEN="daemon")
    show = ("--", "sh", "-c", "echo $FOO $HIDDEN")
    there = {"FOO": "caller", "HIDDEN": "caller"}
    assert printed(daemon, "run", "--wait", *show, **there) == "caller daemon"
    assert printed(daemon, "run", "--wait", "--no-inherit-env", *show, **there) == "daemon daemon"
    assert printed(daemon, "run", "--wait", "--env", "HIDDEN=x", *show, **there) == "caller x"
    nothing_through = {"JOBD_ENVIRONMENT_INHERIT": "NONE"}
    assert printed(daemon, "run", "--wait", *show, **there, **nothing_through) == "daemon daemon"


def test_a_function_has_what_it_is_given(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """One variable, a file of them, all of the caller's; its children too; a time zone counts."""
    file = tmp_path / ".env"
    file.write_text("FOO=file\nexport BAR='from a file'\n")
    submit = ("submit", "--wait")
    assert (
        printed(shared, *submit, "--env", "FOO=1", "--env", "FOO=2", "programs:childs", "FOO")
        == "2"
    )
    assert (
        printed(shared, *submit, "--env-file", str(file), "programs:variable", "BAR")
        == "from a file"
    )
    both = ("--env", "FOO=flag", "--env-file", str(file), "programs:variables", "FOO", "BAR")
    assert printed(shared, *submit, *both) == '["flag","from a file"]'
    assert printed(shared, *submit, "programs:variable", "FOO", FOO="caller") == "null"
    inherited = (*submit, "--inherit-env", "programs:variable", "FOO")
    assert printed(shared, *inherited, FOO="caller") == "caller"
    zone = ("--env", "TZ=XYZ-3", "programs:hour")
    assert printed(shared, *submit, *zone) == "3"


def test_a_job_runs_in_a_directory(shared: DaemonUnderTest) -> None:
    """A function and a command, relative to where the caller is."""
    submit = ("submit", "--wait", "programs:directory", "--cwd")
    assert printed(shared, *submit, "/usr") == "/usr"
    assert printed(shared, *submit, "bin", cwd=Path("/usr")) == str(Path("/usr/bin"))
    assert printed(shared, "run", "--wait", "--cwd", "lib", "pwd", cwd=Path("/usr")) == "/usr/lib"
    missing = shared.cli("run", "--wait", "--cwd", "/nonexistent", "pwd")
    assert missing.returncode == 1
    assert "No such file or directory: '/nonexistent'" in missing.stderr
    missing = shared.cli(*submit, "/nonexistent")
    assert missing.returncode == 1
    assert "No such file or directory: '/nonexistent'" in missing.stderr


def test_nothing_is_left_to_the_next_job(make_daemon: Make) -> None:
    """In the same worker."""
    client = make_daemon(pool__workers=1).start(FOO="daemon").client()
    names = ["FOO", "BAR", "LEFT"]
    given = client.options(env={"FOO": "job", "BAR": "job", "TZ": "XYZ-3"}, cwd="/usr")
    assert given.submit("programs:variables", *names).result() == ["job", "job", None]
    given.submit("programs:spoil").result()
    home = client.submit("programs:directory").result()
    assert home != "/usr"
    assert client.submit("programs:variables", *names).result() == ["daemon", None, None]
    assert (
        client.submit("programs:hour").result() != 3 or given.submit("programs:hour").result() == 3
    )
    with pytest.raises(jobd.JobFailed):
        given.submit("programs:exit_with", 3).result()
    assert client.submit("programs:variables", *names).result() == ["daemon", None, None]
    with pytest.raises(jobd.JobTimedOut):
        given.options(soft_timeout=0.05).submit("time:sleep", 60).result()
    assert client.submit("programs:variables", *names).result() == ["daemon", None, None]


def test_a_module_may_need_variables_to_be_imported(make_daemon: Make) -> None:
    """The check has those of the job, and the worker has them before the import too."""
    daemon = make_daemon(
        modules={
            "needy": "import os, sys\nDB, ARGV = os.environ['DB'], sys.argv\ndef db(): return DB, ARGV"
        }
    )
    daemon.start()
    refused = daemon.cli("submit", "needy:db")
    assert (refused.returncode, "cannot import needy: KeyError: 'DB'" in refused.stderr) == (
        2,
        True,
    )
    given = ("submit", "--wait", "--env", "DB=x", "needy:db")
    assert json.loads(printed(daemon, *given)) == ["x", ["needy:db"]]
    client = daemon.client()
    client.reload()
    graph = {"jobs": {"a": {"function": "needy:db", "env": {"DB": "y"}}}}
    assert client.apply(graph)["a"].result() == ("y", ["needy:db"])


def test_a_coroutine_and_a_generator_may_exit(shared: DaemonUnderTest) -> None:
    """What a stream has produced is there; its result is null."""

    def produce() -> Iterator[int]:
        yield 1
        sys.exit()

    async def later() -> None:
        await asyncio.sleep(0)
        sys.exit(0)

    with shared.client() as client:
        assert client.submit(later).result() is None
        stream = client.submit(produce)
        assert list(stream) == [1]
        assert stream.result() is None


# -- again, with the same --


def test_a_retry_has_the_same(shared: DaemonUnderTest, tmp_path: Path) -> None:
    """Whoever retries, and whatever he has; also with another call."""
    mark = tmp_path / "mark"
    words = ("submit", "--env", "FOO=first", "--wait", "programs:succeed_if", str(mark), "FOO")
    assert shared.cli(*words).returncode == 1
    (number,) = printed(shared, "ls", "last", "-q").split()
    mark.touch()
    assert printed(shared, "retry", number, FOO="other")
    assert printed(shared, "result", "--wait", number) == "first"
    command = ("run", "--", "sh", "-c", f"test -e {mark}2 && echo $FOO")
    number = printed(shared, *command, FOO="first")
    assert shared.cli("wait", number).returncode == 1
    (tmp_path / "mark2").touch()
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/echo /echo edited /' \"$1\"\n")
    editor.chmod(0o755)
    printed(shared, "retry", "--edit", number, FOO="other", EDITOR=str(editor))
    printed(shared, "wait", number)
    assert printed(shared, "logs", number) == "edited first"


def test_what_runs_again_after_a_crash_has_the_same(shared: DaemonUnderTest, mark: Path) -> None:
    """The next worker gets it anew."""
    words = ("--env", "FOO=bar", "--max-crashes", "1", "programs:crash_once", str(mark), "FOO")
    assert printed(shared, "submit", "--wait", *words) == "bar"


def test_the_next_daemon_gives_the_same(make_daemon: Make) -> None:
    """To one job, to jobs of a large submit, and to those of a graph: from the store."""
    daemon = make_daemon().start()
    held = daemon.client().options(hold=True, env={"FOO": "bar"}, cwd="/usr", argv=["-x"])
    ids = [held.submit("programs:variable", "FOO").id, held.submit("programs:argv").id]
    many = held.submit_many("programs:variables", [("FOO", "PWD")] * 200)
    graph = {
        "jobs": {"a": {"run": ["sh", "-c", "echo $FOO"], "env": {"FOO": "graph"}, "hold": True}}
    }
    command = held.apply(graph)["a"].id
    last = many[-1].id
    daemon.kill()
    daemon.start()
    client = daemon.client()
    client.release("all")
    assert client.attach(ids[0]).result() == "bar"
    assert client.attach(ids[1]).result() == ["programs:argv", "-x"]
    assert client.attach(last).result()[0] == "bar"
    client.attach(command).result()
    assert b"".join(client.logs(command)) == b"graph\n"


def test_variables_are_stored_once(make_daemon: Make) -> None:
    """However many jobs have them, and however they were submitted."""
    daemon = make_daemon().start()
    client = daemon.client().options(env={"FOO": "bar" * 1000})
    client.submit_many("programs:variable", [("BAR",)] * 500)[-1].result()
    client.submit("programs:variable", "BAR").result()
    for _ in range(2):
        printed(daemon, "run", "--wait", "--", "true")
    daemon.terminate()
    with closing(sqlite3.connect(daemon.state_dir / "jobd.db")) as store:
        sizes = [row[0] for row in store.execute("SELECT length(data) FROM environments")]
        policies = [row[0] for row in store.execute("SELECT max(length(policy)) FROM jobs")]
    assert len(sizes) == 2
    assert max(sizes) > 3000
    assert max(policies) < 500


# -- secrets --


def test_secrets_are_masked_wherever_a_job_is_shown(make_daemon: Make, tmp_path: Path) -> None:
    """Names stay; a value that looks secret is nowhere, nor in an error or the log."""
    daemon = make_daemon(daemon__log_level="debug").start()
    env = (
        "--env",
        f"API_TOKEN={SECRET}",
        "--env",
        f"DB=postgres://me:{SECRET}@host/x",
        "--env",
        "A=b",
    )
    number = printed(daemon, "submit", "--wait", "-q", *env, "programs:variable", "A") and "1"
    assert daemon.cli("submit", "--wait", *env, "programs:exit_with", "3").returncode == 1
    inherits = printed(daemon, "run", "--", "true", API_TOKEN=SECRET, A="b")
    file = tmp_path / "graph.toml"
    file.write_text(
        f'[jobs.a]\nfunction = "programs:argv"\nenv = {{API_TOKEN = "{SECRET}"}}\ncwd = "/"\n'
    )
    shown = [printed(daemon, "show", number), printed(daemon, "show", number, "--json")]
    assert all("API_TOKEN" in text and "***" in text for text in shown)
    assert json.loads(shown[1])["policy"]["env"]["value"] == {
        "API_TOKEN": "***",
        "DB": "***",
        "A": "b",
    }
    of_command = json.loads(printed(daemon, "show", inherits, "--json"))["policy"]["env"]["value"]
    assert (of_command["API_TOKEN"], of_command["A"]) == ("***", "b")
    shown += [printed(daemon, "show", "all", "--verbose"), printed(daemon, "show", "all", "--json")]
    shown += [printed(daemon, "ls"), printed(daemon, "ls", "--json"), printed(daemon, "failed")]
    shown += [printed(daemon, "apply", str(file), "--dry-run"), printed(daemon, "apply", str(file))]
    shown += [printed(daemon, "graph", "last"), printed(daemon, "graph", "last", "--json")]
    shown += [printed(daemon, "submit", "--json", *env, "programs:argv")]
    config = tmp_path / "jobd.toml"
    config.write_text(f'[defaults]\nenv = {{API_TOKEN = "{SECRET}", A = "b"}}\n')
    shown += [printed(daemon, "config", "show", "--config", str(config))]
    assert "API_TOKEN" in shown[-1]
    config.write_text(f'[defaults]\nenv = ["{SECRET}"]\n')
    shown += [daemon.cli("config", "show", "--config", str(config)).stderr]
    shown += [daemon.cli("submit", "--env", SECRET, "programs:argv", "--verbose").stderr]
    with daemon.client() as client:
        shown += [repr(client.find("all")), repr(client.options(env={"TOKEN": SECRET}))]
    assert [text for text in shown if SECRET in text] == []
    daemon.terminate()
    assert SECRET not in daemon.log


# -- from Python, in graphs, in the settings --


def test_from_python(
    shared: DaemonUnderTest, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same words; a view adds to what the one before it has."""
    monkeypatch.setenv("FROM_HERE", "1")
    (tmp_path / ".env").write_text("BAR=file\nFOO=file\n")
    client = connect(shared.socket)
    view = client.options(env={"FOO": 1, "BAR": "x"}, cwd="/usr").options(env={"BAR": "y"})
    names = ("FOO", "BAR", "FROM_HERE")
    assert view.submit("programs:variables", *names).result() == ["1", "y", None]
    assert view.submit("programs:directory").result() == "/usr"
    assert client.submit("programs:variables", *names).result() == [None, None, None]
    mine = client.options(inherit_env=True, env_file=tmp_path / ".env", env={"FOO": "said"})
    assert mine.submit("programs:variables", *names).result() == ["said", "file", "1"]
    assert mine.options(inherit_env=False).submit("programs:variable", "FROM_HERE").result() is None
    jobs = client.apply(
        {
            "jobs": {
                "a": {"function": "programs:variable", "args": ["FOO"], "env": {"FOO": "graph"}},
                "b": {"function": "programs:argv", "argv": ["x"], "after": ["a"]},
                "c": {"run": ["sh", "-c", "echo $FROM_HERE; pwd"], "cwd": "/usr"},
            }
        }
    )
    assert jobs["a"].result() == "graph"
    assert jobs["b"].result() == ["programs:argv", "x"]
    jobs["c"].result()
    assert b"".join(client.logs(jobs["c"].id)) == b"1\n/usr\n"
    client.close()


def test_from_asyncio_and_an_executor(shared: DaemonUnderTest) -> None:
    """Each of its own accord."""

    async def ask() -> object:
        async with jobd.AsyncClient(shared.socket) as client:
            return await client.options(env={"FOO": "a"}).submit("programs:variable", "FOO")

    assert asyncio.run(ask()) == "a"

    def foo_and_directory() -> tuple[str | None, str]:
        return os.environ.get("FOO"), os.getcwd()

    with jobd.Executor(socket=shared.socket) as executor:
        view = executor.options(env={"FOO": "e"}, cwd="/usr")
        assert view.submit(foo_and_directory).result(timeout=30) == ("e", "/usr")
        assert executor.submit(foo_and_directory).result(timeout=30)[0] is None


def foo_and_directory() -> tuple[str | None, str]:
    """Return what is around this."""
    return os.environ.get("FOO"), os.getcwd()


def test_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which is as before afterwards."""
    monkeypatch.setenv("FOO", "here")
    monkeypatch.setattr("sys.argv", ["pytest", "-x"])
    home = str(Path.cwd())
    with jobd.testing.inline(), jobd.Client() as client:
        view = client.options(env={"FOO": "job"}, cwd="/usr", argv=["a"])
        assert view.submit(foo_and_directory).result() == ("job", "/usr")
        assert view.submit(lambda: sys.argv[1:]).result() == ["a"]
        assert client.submit(foo_and_directory).result() == ("here", home)
        assert client.options(inherit_env=True).submit(foo_and_directory).result() == ("here", home)
        exited = client.submit("sys:exit", 0)
        assert (exited.result(), exited.state) == (None, "succeeded")
        with pytest.raises(jobd.JobFailed):
            client.submit("sys:exit", 3).result()
        assert sys.argv == ["pytest", "-x"]


def test_the_settings_have_defaults(make_daemon: Make) -> None:
    """For all, for a queue, for a function; one by one, what is said with the submit wins."""
    daemon = make_daemon()
    config = daemon.root / ".config" / "jobd" / "jobd.toml"
    config.parent.mkdir(parents=True)
    (config.parent / "here").mkdir()
    config.write_text(
        """
[defaults]
env = {A = "all", B = "all", C = "all", D = "all"}
cwd = "here"
[queues.q]
env = {B = "queue", C = "queue", D = "queue"}
[functions."programs:variables"]
env = {C = "function", D = "function"}
"""
    )
    daemon.start()
    words = ("submit", "--wait", "--queue", "q", "--env", "D=submit", "programs:variables", *"ABCD")
    assert json.loads(printed(daemon, *words)) == ["all", "queue", "function", "submit"]
    assert printed(daemon, "submit", "--wait", "programs:directory") == str(config.parent / "here")
    config.write_text('[defaults]\nargv = ["x"]\n')
    refused = daemon.cli("ping")
    assert (refused.returncode, "'argv' cannot be a default" in refused.stderr) == (78, True)


# -- what makes no sense --


def test_what_makes_no_sense_is_refused_in_one_line_and_nothing_is_queued(
    shared: DaemonUnderTest, tmp_path: Path
) -> None:
    """Exit code 2."""
    bad = tmp_path / "bad.env"
    bad.write_text("A=1\nno variable\n")
    large: Any = {f"LARGE{n}": "x" * 60_000 for n in range(3)}
    before = printed(shared, "ls", "last", "-q")
    cases: list[tuple[tuple[str, ...], str]] = [
        (
            ("--env", "FOO"),
            "--env: a variable has a name and a value, with '=' between: write NAME=VALUE",
        ),
        (("--env", "=x"), "--env: a variable without a name that a system can have"),
        (("--env", "JOBD_SOCKET=/x"), "--env: 'JOBD_SOCKET' is jobd's own to set"),
        (("--env-file", "/nonexistent"), "--env-file: /nonexistent: No such file or directory"),
        (("--env-file", "/"), "--env-file: /: Is a directory"),
        (("--env-file", str(bad)), f"{bad}, line 2: this is no variable: write NAME=VALUE"),
        (("--cwd", ""), "--cwd: '' is no name of a directory"),
        (("--env", f"A={'x' * 66_000}", "--env", f"B={'x' * 66_000}"), "over the limit of 131072"),
    ]
    for words, sentence in cases:
        done = shared.cli("submit", *words, "programs:argv")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert sentence in done.stderr
        assert shared.cli("run", *words, "--", "true").returncode == 2
    for words in (("submit", "--inherit-env", "programs:argv"), ("run", "--", "true")):
        done = shared.cli(*words, **large)
        assert (done.returncode, done.stdout) == (2, "")
        assert "over the limit of 131072 (" not in done.stderr
        assert "over the limit of 131072" in done.stderr
    assert shared.cli("run", "--argv", "x", "--", "true").returncode == 2
    graph = tmp_path / "graph.toml"
    graph.write_text('[jobs.a]\nrun = ["true"]\nargv = ["x"]\n')
    assert shared.cli("apply", str(graph)).returncode == 2
    with shared.client() as client:
        wrong: list[Any] = [
            {"env": {"A": "\0"}},
            {"env": {"A=B": ""}},
            {"argv": [1]},
            {"cwd": "a\0"},
        ]
        for options in wrong:
            with pytest.raises(jobd.UsageError):
                client.options(**options)
    assert printed(shared, "ls", "last", "-q") == before


def test_an_allow_list_keeps_variables_away_from_functions(make_daemon: Make) -> None:
    """PATH alone would lead many a function to another program; a command may be any anyhow."""
    daemon = make_daemon(security__allow="programs:*,jobd.shell:run").start()
    for words in (("--env", "PATH=/x"), ("--inherit-env",), ("--cwd", "/")):
        refused = daemon.cli("submit", *words, "programs:argv")
        assert (refused.returncode, "security.allow is set" in refused.stderr) == (77, True)
    assert printed(daemon, "submit", "--wait", "programs:argv", "--argv", "a")
    assert printed(daemon, "run", "--wait", "--", "sh", "-c", "echo $FOO", FOO="bar") == "bar"


def test_a_reference_means_the_same_to_the_checker_and_to_a_worker(make_daemon: Make) -> None:
    """Whatever either has imported before."""
    daemon = make_daemon()
    package = daemon.work_dir / "pkg" / "sub"
    package.mkdir(parents=True)
    for directory in (package, package.parent):
        (directory / "__init__.py").touch()
    (package / "work.py").write_text("def relative(): return 'done'\n")
    daemon.start()
    for reference in ("pkg:sub.work.relative", "pkg.sub.work:relative", "pkg:sub.work.relative"):
        assert printed(daemon, "submit", "--wait", reference) == "done"
    refused = daemon.cli("submit", "pkg:sub.nothing")
    assert (refused.returncode, "has no function 'nothing'" in refused.stderr) == (2, True)
    assert printed(daemon, "submit", "--wait", "--no-check", "pkg:sub.work.relative") == "done"
    with daemon.client() as client:
        eventually(lambda: client.status().jobs["succeeded"] == 4)
