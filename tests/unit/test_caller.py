"""What a submit takes from the process that makes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobd.client import caller
from jobd.client.caller import shown, travelling, with_files
from jobd.client.calls import graph_call, with_options
from jobd.client.graphs import plan_of
from jobd.model.errors import UsageError
from jobd.model.messages import encode
from jobd.model.options import decode_options, encode_options, parse_options


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inherit what a test has made, and nothing else."""
    for name in [name for name in os.environ if name.startswith("MINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(caller, "_patterns", lambda: ["MINE_*", "!MINE_NOT"])


def test_files_are_read_at_once_and_lie_under_what_is_said(tmp_path: Path) -> None:
    """A later file wins; a view's variables are added to those of the one before it."""
    for name, text in (("a", "A=a\nB=a\nC=a"), ("b", "B=b\nC=b")):
        (tmp_path / name).write_text(text)
    files: list[str | Path] = [str(tmp_path / "a"), tmp_path / "b"]
    said = with_options(None, {"env_file": files, "env": {"C": "said"}})
    assert said == {"env": {"A": "a", "B": "b", "C": "said"}}
    more = with_options(said, {"env": {"A": "more", "D": 4}})
    assert more == {"env": {"A": "more", "B": "b", "C": "said", "D": "4"}}
    with pytest.raises(UsageError, match="env_file: .*: No such file"):
        with_files(parse_options({"env_file": str(tmp_path / "none")}))


def test_what_is_inherited_is_looked_up_at_the_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the patterns of the settings, under all that is said, and each time anew."""
    said = with_options(None, {"inherit_env": True, "env": {"MINE_B": "said"}, "retries": 1})
    for value in ("1", "2"):
        monkeypatch.setenv("MINE_A", value)
        monkeypatch.setenv("MINE_B", "inherited")
        monkeypatch.setenv("MINE_NOT", "x")
        assert travelling(said) == {
            "env": {"MINE_A": value, "MINE_B": "said"},
            "inherit_env": ["MINE_*", "!MINE_NOT"],
            "retries": 1,
        }
    assert travelling(travelling(said)) == travelling(said)
    assert travelling(said, []) == {"env": {"MINE_B": "said"}, "retries": 1}
    refused = with_options(said, {"inherit_env": False})
    assert travelling(refused) == {"env": {"MINE_B": "said"}, "retries": 1}


def test_a_graph_has_what_its_jobs_inherit_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand commands are not a thousand environments; others have none of it."""
    monkeypatch.setenv("MINE_A", "x" * 10_000)
    jobs = {f"c{n}": {"run": ["true"], "env": {"B": str(n)}} for n in range(100)}
    jobs |= {"f": {"function": "m:f"}, "g": {"run": ["true"], "inherit_env": False}}  # type: ignore[dict-item]
    plan = plan_of({"jobs": jobs})
    request = graph_call(plan, None, None, json=True)
    assert len(encode([request])) < 40_000
    found = {
        node.name: decode_options(call.options, request.environment).get("env")
        for node, call in zip(plan.nodes, request.jobs, strict=True)
    }
    assert found["c7"] == {"MINE_A": "x" * 10_000, "B": "7"}
    assert (found["f"], found["g"]) == (None, None)


def test_secrets_are_not_shown_with_the_options() -> None:
    """As in the repr of a view."""
    said = parse_options({"env": {"TOKEN": "hush", "A": "b"}, "retries": 1})
    assert shown(said) == {"env": {"TOKEN": "***", "A": "b"}, "retries": 1}
    assert shown(None) == {}


def test_an_environment_that_is_none_is_refused() -> None:
    """Clients are not trusted."""
    options = encode_options({"inherit_env": ["*"]})
    for environment in (b"\xc1", b"\x93\x01\x02\x03"):
        with pytest.raises(UsageError):
            decode_options(options, environment)
