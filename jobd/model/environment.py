"""Environment variables that jobs are given: what they may be, which are inherited, which are secrets.

Where they come from: ``--env NAME=VALUE``, a file (``parse_file``), the caller's own
(``inherited``).  They travel as one piece of bytes, and are stored once under its digest, however many
jobs have the same.  What people are shown has ``***`` for what looks like a secret: by
its name, or by what it holds.  No error quotes a value.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from jobd.model.errors import UsageError

Environment = dict[str, str]

MOST_BYTES = 128 * 1024
"""What all variables of a job may take; the kernel takes no single one that is longer."""

OWN = "JOBD_"
"""How the names begin that only jobd sets: what they say is the daemon's."""

_NEVER = re.compile(
    r"JOBD_.*|_|SHLVL|PWD|OLDPWD|NOTIFY_SOCKET|LISTEN_(PID|FDS|FDNAMES|PIDFDID)|WATCHDOG_(PID|USEC)"
    r"|INVOCATION_ID|JOURNAL_STREAM|MAINPID|MANAGERPID|MANAGERPIDFDID|SYSTEMD_EXEC_PID|FDSTORE"
    r"|MEMORY_PRESSURE_.*|(STATE|RUNTIME|CACHE|LOGS|CONFIGURATION|CREDENTIALS)_DIRECTORY"
)
"""What concerns one process or service, and is never inherited, whatever the patterns say."""

_SHARE = re.compile(r"\w+_(NUM|MAX|MAXIMUM)_(\w+_)?THREADS|\w+_THREADS_NUM")
"""What bounds the threads of libraries: a worker is given its share of them (``jobd.pool.share``)."""

_AS_OPENMP = re.compile(r"(OPENBLAS|MKL|BLIS|NUMEXPR)_NUM_THREADS")
"""Where a library looks first that else goes by ``OMP_NUM_THREADS``."""

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASS|_PW$|^(?!(OLD)?PWD$).*PWD$|KEY|CRED|AUTH(?!OR(_|$))|COOKIE|PRIVATE|DSN"
    r"|SIGNATURE|JWT|BEARER|WEBHOOK|CONN(ECTION)?_?STR|SESSION_ID|_PIN$|_SALT$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"://\S*@"  # a user, and most likely a password, in a URL
    r"|(token|key|secret|passw\w*|pwd|sig|signature)\s*=\s*\S"  # in a query, or a connection string
    r"|-----BEGIN|\beyJ[\w-]{5,}\.|\bBearer\s"
    r"|\b(gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|AKIA|ASIA|AIza|hf_|pypi-)[\w-]{8}",
    re.IGNORECASE,
)

MASK = "***"
"""Stands for a secret where people are shown the variables of a job."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Environment).decode


# -- what is said --


def parse_environment(said: Any) -> Environment:
    """Read variables: a mapping, or texts ``NAME=VALUE``, of which a later one wins.

    Raises:
        UsageError: they are none, or too large.
    """
    if isinstance(said, str):
        said = [said]
    if isinstance(said, Mapping):
        pairs: Iterable[tuple[Any, Any]] = said.items()
    elif isinstance(said, list | tuple):
        pairs = [_pair(word) for word in said]
    else:
        raise UsageError("these are no variables", 'give {"NAME": "value"}')
    found = {_name(name): _value(name, value) for name, value in pairs}
    refuse_large(found)
    return found


def _pair(word: object) -> tuple[str, str]:
    name, equals, value = word.partition("=") if isinstance(word, str) else ("", "", "")
    if not equals:
        # It is not quoted: what has no name may be a secret.
        raise UsageError("a variable has a name and a value, with '=' between", "write NAME=VALUE")
    return name, value


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or "=" in name or not is_text(name):
        raise UsageError(
            "a variable without a name that a system can have",
            "a name is a text in UTF-8, not empty, without '=' and NUL",
        )
    if name.startswith(OWN):
        raise UsageError(f"{name!r} is jobd's own to set", f"take a name without {OWN}")
    return name


def _value(name: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise UsageError(f"the value of {name!r} is no text", "give a text or a whole number")
    if not is_text(value):
        raise UsageError(f"the value of {name!r} has a NUL, or is not UTF-8", "pass it in a file")
    return value


def is_text(text: str) -> bool:
    """Whether a text can be given to a program: it is UTF-8, and has no NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def refuse_large(environment: Environment) -> None:
    """Refuse variables that are too large together.

    Raises:
        UsageError: they are.
    """
    size = sum(len(k.encode()) + len(v.encode()) + 2 for k, v in environment.items())
    if size > MOST_BYTES:
        largest = max(environment, key=lambda name: len(environment[name]))
        raise UsageError(
            f"the variables have {size} bytes, over the limit of {MOST_BYTES}",
            f"leave some out: {largest!r} is the largest; or pass a file's name",
        )


_LINE = re.compile(r"(?:export\s+)?([^\s=#'\"]+)\s*=\s*(.*)", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_file(data: bytes, name: str) -> Environment:
    r"""Read a file of variables, one ``NAME=VALUE`` a line.

    Empty lines and those that begin with ``#`` say nothing, ``export`` may stand before a name.
    A value is taken as it is up to `` #`` or the end of the line, without the space around it;
    in ``'single quotes'`` to their end, whatever it holds; in ``"double quotes"`` with ``\n``,
    ``\t``, ``\r``, and ``\`` before any other character for that one.  Nothing is expanded.

    Raises:
        UsageError: a line is none of these; the text tells which.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not a text in UTF-8", "write NAME=VALUE lines") from None
    found: Environment = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            found |= parse_environment(_of_line(stripped))
        except UsageError as error:
            raise UsageError(f"{name}, line {number}: {error.message}", error.hint) from None
    refuse_large(found)
    return found


def _of_line(line: str) -> Environment:
    match = _LINE.fullmatch(line)
    if match is None:
        raise UsageError("this is no variable", "write NAME=VALUE")
    return {match[1]: _unquoted(match[2])}


def _unquoted(text: str) -> str:
    if text[:1] == "'":
        value, quote, rest = text[1:].partition("'")
    elif text[:1] == '"':
        match = _DOUBLE.match(text)
        value, quote, rest = "", "", ""
        if match is not None:
            value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), match[1])
            quote, rest = '"', text[match.end() :]
    else:
        return re.split(r"(?:^|\s)#", text, maxsplit=1)[0].rstrip()
    if not quote:
        raise UsageError("a quote is not closed", "a value ends with its line")
    if rest.strip() and not rest.lstrip().startswith("#"):
        raise UsageError("something follows the closing quote", "quote the whole value")
    return value


# -- what is inherited --


def check_patterns(patterns: Iterable[Any]) -> list[str]:
    """Return patterns of names, ``!`` before those of names that are not meant.

    Raises:
        UsageError: one is none.
    """
    found = [*patterns]
    for pattern in found:
        if not isinstance(pattern, str) or not pattern.removeprefix("!") or "=" in pattern:
            raise UsageError(
                f"{pattern!r} is no pattern of names", 'write "*", "AWS_*" or "!SECRET_*"'
            )
    return found


def lets_through(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells of a name whether it is inherited: a pattern means it, and none with ``!``."""
    return _lets_through(tuple(patterns))


@lru_cache(maxsize=100)
def _lets_through(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    from fnmatch import translate  # noqa: PLC0415  # most jobs inherit nothing

    def any_of(words: list[str]) -> Callable[[str], object]:
        return re.compile("|".join(map(translate, words)) or r"(?!)").match

    wanted = any_of([word for word in patterns if word[0] != "!"])
    unwanted = any_of([word[1:] for word in patterns if word[0] == "!"])
    return lambda name: bool(wanted(name) and not unwanted(name) and not _NEVER.fullmatch(name))


def inherited(environ: Mapping[str, str], patterns: Sequence[str]) -> Environment:
    """Return those variables of a process that a job inherits; what is not UTF-8 is left out."""
    passes = lets_through(patterns)
    return {
        name: value
        for name, value in environ.items()
        if passes(name) and is_text(name) and is_text(value)
    }


def environment_of(base: Mapping[str, str], given: bytes, patterns: Sequence[str]) -> Environment:
    """Return the environment of a job: what was given, over what its worker has.

    What the job inherits (by ``patterns``) is the caller's, also where he has no such variable; but
    for what bounds the threads of libraries, as far as he does not say it himself.
    """
    found, variables = dict(base), decoded(given)
    if patterns:
        passes = lets_through(patterns)
        found = {k: v for k, v in base.items() if not passes(k) or _SHARE.fullmatch(k)}
        if "OMP_NUM_THREADS" in variables:
            found = {k: v for k, v in found.items() if not _AS_OPENMP.fullmatch(k)}
    return found | variables


# -- as it travels, and as it is shown --


def encoded(environment: Mapping[str, str]) -> bytes:
    """Return variables as they travel, the same bytes for the same variables; none: nothing."""
    return _encode(dict(sorted(environment.items()))) if environment else b""


def decoded(data: bytes) -> Environment:
    """Return variables that were stored."""
    return _decode(data) if data else {}


def digest_of(data: bytes) -> bytes:
    """Return the name under which encoded variables are stored."""
    from hashlib import blake2b  # noqa: PLC0415  # the command line needs none

    return blake2b(data, digest_size=16).digest()


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like one whose value nobody is to see."""
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))


def masked(environment: Mapping[str, str]) -> Environment:
    """Return variables as people may see them."""
    return {
        name: MASK if value and is_secret(name, value) else value
        for name, value in environment.items()
    }
