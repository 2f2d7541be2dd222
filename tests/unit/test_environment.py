"""Variables of jobs: files of them, which are inherited, which are secret."""

from __future__ import annotations

import pytest

from jobd.model.environment import (
    MASK,
    decoded,
    digest_of,
    encoded,
    environment_of,
    inherited,
    lets_through,
    masked,
    parse_file,
)
from jobd.model.errors import UsageError
from jobd.pool.share import VARIABLES

FILE = rb"""
# a comment
A=1
export B = two words   # what follows is one too
C=a#b
D='single $A # "all" of it'   # but this
E="tab\t quote\" backslash\\ dollar\$"
F=
G=""
H = ''
URL=postgres://u:p@h/d?x=1
A=2
"""


def test_a_file_of_variables() -> None:
    """Each form of a line; nothing is expanded, and the later one wins."""
    assert parse_file(b"\xef\xbb\xbf" + FILE.replace(b"\n", b"\r\n"), ".env") == {
        "A": "2",
        "B": "two words",
        "C": "a#b",
        "D": 'single $A # "all" of it',
        "E": 'tab\t quote" backslash\\ dollar$',
        "F": "",
        "G": "",
        "H": "",
        "URL": "postgres://u:p@h/d?x=1",
    }


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hunter2", "this is no variable"),
        ("=hunter2", "this is no variable"),
        ("A B=hunter2", "this is no variable"),
        ("A='hunter2", "a quote is not closed"),
        ('A="hunter2\\"', "a quote is not closed"),
        ('A="hunter2" more', "something follows the closing quote"),
        ("A=hunter2\0", "the value of 'A' has a NUL, or is not UTF-8"),
        ("JOBD_SOCKET=hunter2", "'JOBD_SOCKET' is jobd's own to set"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_quoted(line: str, problem: str) -> None:
    """It may be a secret."""
    with pytest.raises(UsageError) as caught:
        parse_file(f"A=1\n\n{line}\n".encode(), "dir/.env")
    assert caught.value.message == f"dir/.env, line 3: {problem}"
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_text_or_too_large() -> None:
    """One sentence."""
    with pytest.raises(UsageError, match=r"^\.env is not a text in UTF-8"):
        parse_file(b"A=\xff", ".env")
    with pytest.raises(UsageError, match="over the limit of 131072"):
        parse_file(b"\n".join(b"A%d=%s" % (n, b"x" * 10_000) for n in range(14)), ".env")


@pytest.mark.parametrize(
    ("patterns", "through"),
    [
        (["*"], {"PATH", "LC_ALL", "MY_KEY"}),
        (["*", "!LC_*"], {"PATH", "MY_KEY"}),
        (["!LC_*", "*"], {"PATH", "MY_KEY"}),
        (["PATH", "LC_?LL"], {"PATH", "LC_ALL"}),
        (["path"], set()),
        (["!PATH"], set()),
        ([], set()),
    ],
)
def test_patterns_choose_what_is_inherited(patterns: list[str], through: set[str]) -> None:
    """One of them has to mean a name, and none with an exclamation mark may."""
    never = [
        *("JOBD_SOCKET", "JOBD_ANYTHING", "_", "SHLVL", "PWD", "OLDPWD", "NOTIFY_SOCKET"),
        *("LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "INVOCATION_ID", "STATE_DIRECTORY"),
    ]
    environ = dict.fromkeys(["PATH", "LC_ALL", "MY_KEY", *never], "x")
    assert inherited(environ, patterns).keys() == through


def test_what_is_not_utf8_is_not_inherited() -> None:
    """It cannot travel, and no other variable is to be lost for it."""
    assert inherited({"A": "\udcff", "B\udcff": "1", "C": "1"}, ["*"]) == {"C": "1"}


def test_what_a_job_inherits_is_as_its_caller_has_it_also_where_he_has_nothing() -> None:
    """All else is the worker's."""
    share = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    base = {"PATH": "/daemon", "FOO": "daemon", "JOBD_SOCKET": "/s", "TERM": "dumb", **share}
    given = encoded({"PATH": "/caller"})
    assert environment_of(base, given, ["*", "!TERM"]) == {
        "PATH": "/caller",
        "JOBD_SOCKET": "/s",
        "TERM": "dumb",
        **share,
    }
    assert environment_of(base, given, []) == base | {"PATH": "/caller"}
    assert environment_of(base, b"", []) == base


def test_the_share_of_threads_of_a_worker_stays_where_the_caller_does_not_say_it_himself() -> None:
    """Whoever sets OpenMP's means the libraries, too, that go by it."""
    base = dict.fromkeys(VARIABLES, "1")
    assert environment_of(base, encoded({"A": "1"}), ["*"]) == base | {"A": "1"}
    found = environment_of(base, encoded({"OMP_NUM_THREADS": "4"}), ["*"])
    assert found["OMP_NUM_THREADS"] == "4"
    assert base.keys() - found.keys() == {
        *("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    }
    assert environment_of(base, encoded({"POLARS_MAX_THREADS": "4"}), ["*"]) == base | {
        "POLARS_MAX_THREADS": "4"
    }


def test_the_same_variables_have_the_same_digest_in_any_order() -> None:
    """They are stored once."""
    one, other = encoded({"A": "1", "B": "2"}), encoded({"B": "2", "A": "1"})
    assert digest_of(one) == digest_of(other) != digest_of(encoded({"A": "1"}))
    assert (decoded(one), encoded({}), decoded(b"")) == ({"A": "1", "B": "2"}, b"", {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, "x")
            for name in ("API_TOKEN", "secret", "DB_PASSWORD", "MYSQL_PWD", "PGPASSWORD")
        ),
        *((name, "x") for name in ("AWS_SECRET_ACCESS_KEY", "apiKey", "CREDENTIALS", "SENTRY_DSN")),
        *((name, "x") for name in ("BASIC_AUTH", "SESSION_COOKIE", "SMTP_PASS", "SLACK_WEBHOOK")),
        ("DATABASE_URL", "postgres://me:hunter2@host/db"),
        ("REPO", "https://ghp_0123456789@github.com/a/b"),
        ("STORE", "DefaultEndpoints=https;AccountKey=abc=="),
        ("LINK", "https://host/x?sig=abc"),
        ("CERT", "-----BEGIN PRIVATE KEY-----\nx"),
        ("HEADER", "Bearer abc"),
        ("ANY", "eyJhbGciOiJIUzI1NiJ9.e30.x"),
        ("ANY", "ghp_0123456789abcdef"),
    ],
)
def test_what_looks_like_a_secret_is_masked(name: str, value: str) -> None:
    """By its name, or by what it holds."""
    assert masked({name: value, "FOO": "bar"}) == {name: MASK, "FOO": "bar"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PATH", "/bin"), ("PWD", "/home"), ("OLDPWD", "/"), ("GIT_AUTHOR_NAME", "me")),
        *(("URL", "https://host/a@2x.png".replace("@", "_")), ("TZ", "UTC"), ("LANG", "C.UTF-8")),
        ("API_TOKEN", ""),
    ],
)
def test_what_does_not_is_shown(name: str, value: str) -> None:
    """Also that a secret is empty: that is what one looks for."""
    assert masked({name: value}) == {name: value}


def test_a_pattern_is_judged_by_the_whole_name() -> None:
    """Not by a part of it."""
    passes = lets_through(["A", "B*"])
    assert [name for name in ("A", "AB", "BA", "XA", "XB") if passes(name)] == ["A", "BA"]
