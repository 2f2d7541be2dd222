"""What a list of allowed functions lets pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobd import payload
from jobd.daemon.allowed import AllowList
from jobd.model.errors import NotAllowed
from jobd.model.messages import Submit
from jobd.pool.resolve import check, resolve

MODULE = """\
from os import getcwd
from os.path import join as put_together
import functools, os, subprocess

__all__ = ["getcwd"]

def load():
    return 1

def _secret():
    return 2

def decorated(function):
    @functools.wraps(function)
    def inner():
        return function()
    return inner

@decorated
def wrapped():
    return 3

class Base:
    @staticmethod
    def lock():
        return 4

class Shop(Base):
    @staticmethod
    def open():
        return 5

alias = load
"""


@pytest.fixture(scope="module", autouse=True)
def _module(tmp_path_factory: pytest.TempPathFactory) -> object:
    directory = tmp_path_factory.mktemp("allowed")
    Path(directory / "allowed_shop.py").write_text(MODULE, encoding="utf-8")
    sys.path.insert(0, str(directory))
    yield
    sys.path.remove(str(directory))
    sys.modules.pop("allowed_shop", None)


@pytest.mark.parametrize(
    ("pattern", "function"),
    [
        *(("mytasks:*", "mytasks:load"), ("mytasks:Shop.*", "mytasks:Shop.open")),
        *(("r.*:b", "r.a.c:b"), ("mytasks:_one", "mytasks:_one"), ("mytasks:lo?d", "mytasks:load")),
    ],
)
def test_what_a_pattern_matches_is_allowed(pattern: str, function: str) -> None:
    """A wildcard stands for any part of a name, and for any modules."""
    AllowList((pattern,)).refuse_foreign(submit(function))


@pytest.mark.parametrize("function", ["mytasks:os.system", "mytasks:subprocess.run", "os:system"])
def test_what_a_module_has_imported_is_not_allowed_with_it(function: str) -> None:
    """Almost every module would lead to a shell."""
    with pytest.raises(NotAllowed):
        AllowList(("mytasks:*",)).refuse_foreign(submit(function))


@pytest.mark.parametrize(
    ("pattern", "function"),
    [
        *(("mytasks:*", "mytasks:_secret"), ("mytasks:*", "mytasks:__getattr__")),
        *(("mytasks:Shop.*", "mytasks:Shop.__init__"), ("mytasks:*.*", "mytasks:_Shop.open")),
        *(("my*:load", "my._impl:load"), ("mytasks:?secret", "mytasks:_secret")),
    ],
)
def test_no_wildcard_stands_for_a_leading_underscore(pattern: str, function: str) -> None:
    """Such a name is a promise to nobody, or one of Python's own."""
    with pytest.raises(NotAllowed):
        AllowList((pattern,)).refuse_foreign(submit(function))


@pytest.mark.parametrize(
    ("name", "value"),
    [("load", 1), ("wrapped", 3), ("Shop.open", 5), ("Base.lock", 4)],
)
def test_a_wildcard_finds_what_the_module_defines(name: str, value: int) -> None:
    """Decorated, or in a class of its own, it is the module's as well."""
    assert resolve(f"allowed_shop:{name}", ["allowed_shop:*", "allowed_shop:*.*"])() == value


@pytest.mark.parametrize(
    "name", ["put_together", "alias", "Shop.lock", "Shop.mro", "functools.reduce"]
)
def test_a_wildcard_does_not_find_what_comes_from_elsewhere(name: str) -> None:
    """Imported, inherited, or another name for it."""
    allow = ["allowed_shop:*", "allowed_shop:*.*"]
    with pytest.raises(NotAllowed, match="neither defines"):
        resolve(f"allowed_shop:{name}", allow)
    refusal = check(f"allowed_shop:{name}", 0, (), allow)
    assert refusal is not None
    assert refusal.error == NotAllowed.error
    assert f'"allowed_shop:{name}"' in refusal.hint


def test_what_a_module_lists_as_its_own_is_its_own() -> None:
    """``__all__`` says so, wherever it comes from."""
    assert resolve("allowed_shop:getcwd", ["allowed_shop:*"])() == str(Path.cwd())


def test_what_is_named_without_a_wildcard_may_come_from_anywhere() -> None:
    """Somebody has thought of it."""
    assert callable(resolve("allowed_shop:put_together", ["allowed_shop:put_together"]))
    assert callable(resolve("allowed_shop:_secret", ["allowed_shop:*", "allowed_shop:_secret"]))


def test_without_a_list_everything_may_run() -> None:
    """As it is by default."""
    assert callable(resolve("allowed_shop:subprocess.run"))


def submit(function: str) -> Submit:
    """Return a submit of one call without arguments."""
    return Submit(1, b"k" * 16, function, [payload.encode_call((), {}, json=True)[0]], [])
