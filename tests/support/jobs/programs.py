"""Programs, and functions that look at what is around them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import click


def main() -> None:
    """Read a command line, as any program does, and exit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--exit", type=int)
    said = parser.parse_args()
    print(said.words, said.verbose)
    sys.exit(said.exit)


@click.command()
@click.argument("words", nargs=-1)
@click.option("--fail", is_flag=True)
def clicked(words: tuple[str, ...], *, fail: bool) -> None:
    """Say the words."""
    click.echo(" ".join(words))
    if fail:
        raise click.ClickException("as asked for")


def argv() -> list[str]:
    """Return what a program would see."""
    return sys.argv


def spoil_argv() -> None:
    """Leave something there, in place and for good."""
    sys.argv.append("left")
    sys.argv[0] = "left"


def exit_with(code: object) -> None:
    """Exit."""
    sys.exit(code)  # type: ignore[arg-type]  # whatever a user passes


def variable(name: str) -> str | None:
    """Return a variable."""
    return os.environ.get(name)


def variables(*names: str) -> list[str | None]:
    """Return variables."""
    return [os.environ.get(name) for name in names]


def childs(name: str) -> str:
    """Return a variable as a child process sees it."""
    return subprocess.check_output(["printenv", name], text=True).strip()


def directory() -> str:
    """Return the current directory."""
    return str(Path.cwd())


def spoil() -> None:
    """Leave variables and a directory behind."""
    os.environ["LEFT"] = "1"
    os.environ["FOO"] = "spoilt"
    os.chdir("/")


def hour() -> int:
    """Return the hour at which 1970 began here."""
    return time.localtime(0).tm_hour


def succeed_if(path: str, name: str) -> str | None:
    """Fail unless there is a file; return a variable."""
    if not Path(path).exists():
        raise FileNotFoundError(path)
    return os.environ.get(name)


def crash_once(mark: str, name: str) -> str | None:
    """Take the worker down the first time; return a variable."""
    if not Path(mark).exists():
        Path(mark).touch()
        os._exit(9)
    return os.environ.get(name)
