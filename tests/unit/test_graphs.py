"""Graphs of jobs: what a file may say, in which order its jobs go, and how they are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobd.cli.drawing import FINE, PLAIN, Key, Source, sources_text, tree
from jobd.client.calls import graph_call
from jobd.client.graphs import Link, Plan, plan_of, read
from jobd.inputs import JobResult
from jobd.model.edges import When
from jobd.model.errors import UsageError
from jobd.model.job import COMMAND
from jobd.model.messages import OWN_KEY
from jobd.model.options import decode_options, parse_options

LOAD = {"function": "m:load"}


def plan(**jobs: dict[str, Any]) -> Plan:
    """Return the plan of a graph; a job without a function gets one."""
    return plan_of({"jobs": {name: {"function": "m:f", **job} for name, job in jobs.items()}})


def own(place: int) -> bytes:
    """Return what the message calls a job of the graph."""
    return OWN_KEY + place.to_bytes(8, "big")


def test_each_job_follows_those_that_it_comes_after() -> None:
    """Else they stay as they were given."""
    found = plan(d={"after": ["b", "c"]}, c={"args": ["@job:a"]}, a={}, b={"after_any": "a"}, e={})
    assert [node.name for node in found.nodes] == ["a", "b", "c", "d", "e"]
    assert found.places == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}


def test_edges_have_kinds_and_some_have_values() -> None:
    """Of two from one job the stricter counts; ids are jobs that are there already."""
    found = plan(
        a={},
        b={},
        c={
            "args": [["@job:a.rows[0]", {"x": "@job:7"}]],
            "after": ["8"],
            "after_any": ["a", 9],
            "after_fail": "b",
        },
    )
    assert found.nodes[2].links == [
        Link("a", When.SUCCEEDED, value=True),
        Link(7, When.SUCCEEDED, value=True),
        Link(8, When.SUCCEEDED, value=False),
        Link(9, When.ENDED, value=False),
        Link("b", When.FAILED, value=False),
    ]


def test_the_message_names_jobs_by_their_places() -> None:
    """The options of a job are its own, and its name is the one in the file."""
    found = plan(b={"args": [1, "@job:a"], "after_fail": ["c", 7]}, a={"retries": 3}, c={})
    request = graph_call(found, parse_options({"queue": "etl", "after": 5}), None, json=True)
    a, c, b = request.jobs
    assert (a.inputs, a.after) == ([], [(5, When.SUCCEEDED)])
    assert b.inputs == [[own(0)]]
    assert b.after == [(5, When.SUCCEEDED), (own(1), When.FAILED), (7, When.FAILED)]
    assert decode_options(a.options) == {"queue": "etl", "name": "a", "retries": 3}
    assert decode_options(c.options) == {"queue": "etl", "name": "c"}
    assert b.shapes == [(2, ())]
    assert b.check


def test_a_command_is_a_job_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current directory, and nobody has to check our own function."""
    monkeypatch.chdir(tmp_path)
    found = plan_of({"jobs": {"a": {"run": ["sh", "-c", "@job:b"], "timeout": "10s"}}})
    assert found.nodes[0].function == COMMAND
    assert found.nodes[0].kwargs == {"argv": ["sh", "-c", "@job:b"], "cwd": str(tmp_path)}
    (call,) = graph_call(found, None, None).jobs
    assert not call.check


def test_python_may_pass_functions_and_deferred_results() -> None:
    """And any argument that can travel."""
    before = JobResult(4)
    found = plan(a={"function": len, "args": [before], "after": [before]}, b={"args": ({1, 2},)})
    a, b = graph_call(found, None, None).jobs
    assert (a.function, a.inputs, a.after) == ("builtins:len", [[4]], [(4, When.SUCCEEDED)])
    assert b.args[0][:1] == b"p"
    with pytest.raises(UsageError, match="jobs.b: an argument is nothing that JSON can say"):
        graph_call(found, None, None, json=True)


@pytest.mark.parametrize(
    ("graph", "sentence", "hint"),
    [
        ({}, "a graph of no jobs", ""),
        ({"jobs": {}}, "a graph of no jobs", ""),
        ({"jobs": []}, "a graph of no jobs", ""),
        ({"job": {"a": LOAD}}, "a graph has no 'job'", "did you mean 'jobs'?"),
        ({"jobs": {"a": 1}}, "jobs.a is no table", "write [jobs.a]"),
        ({"jobs": {"7": LOAD}}, "'7' is no name of a job here", ""),
        ({"jobs": {"a.b": LOAD}}, "'a.b' is no name of a job here", ""),
        ({"jobs": {"a": {}}}, "jobs.a needs one of 'function' and 'run'", ""),
        ({"jobs": {"a": LOAD | {"run": ["x"]}}}, "jobs.a needs one of 'function' and 'run'", ""),
        ({"jobs": {"a": {"run": "make"}}}, "jobs.a.run is the whole command", ""),
        ({"jobs": {"a": {"run": []}}}, "jobs.a.run is the whole command", ""),
        ({"jobs": {"a": {"run": ["x"], "args": [1]}}}, "jobs.a.run is the whole command", ""),
        ({"jobs": {"a": {"function": 5}}}, "jobs.a.function is no text", ""),
        ({"jobs": {"a": LOAD | {"args": 1}}}, "jobs.a.args is no list", ""),
        ({"jobs": {"a": LOAD | {"kwargs": [1]}}}, "jobs.a.kwargs is no table", ""),
        (
            {"jobs": {"a": LOAD | {"retrys": 1}}},
            "jobs.a has no 'retrys'",
            "did you mean 'retries'?",
        ),
        ({"jobs": {"a": LOAD | {"after": 1.5}}}, "jobs.a.after names no jobs", ""),
        (
            {"jobs": {"load": LOAD, "b": LOAD | {"after": ["laod"]}}},
            "jobs.b: there is no job 'laod'",
            "did you mean 'load'?",
        ),
        (
            {"jobs": {"load": LOAD, "b": LOAD | {"args": [{"x": "@job:lod.rows"}]}}},
            "jobs.b: there is no job 'lod'",
            "did you mean 'load'?",
        ),
        ({"jobs": {"a": LOAD | {"args": ["@job:"]}}}, "names no job by its id", ""),
        ({"jobs": {"b": LOAD, "a": LOAD | {"args": ["@job:b!"]}}}, "is no path into a value", ""),
        (
            {"jobs": {"b": LOAD, "a": LOAD | {"args": ["@job:b"], "after_fail": "b"}}},
            "jobs.a: 'b' cannot both succeed and fail",
            "",
        ),
        ({"jobs": {"a": LOAD | {"after": "a"}}}, "in a circle: a -> a", ""),
        (
            {
                "jobs": {
                    "x": LOAD,
                    "load": LOAD | {"after": ["x", "report"]},
                    "clean": LOAD | {"after_any": "load"},
                    "report": LOAD | {"args": ["@job:clean"]},
                }
            },
            "the jobs come after each other in a circle: load -> clean -> report -> load",
            "",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    graph: dict[str, Any], sentence: str, hint: str
) -> None:
    """In one sentence that says where."""
    with pytest.raises(UsageError) as caught:
        plan_of(graph)
    assert sentence in caught.value.message
    assert hint in caught.value.hint


def test_an_option_that_cannot_be_used_names_its_job() -> None:
    """With the words that it has everywhere."""
    with pytest.raises(UsageError, match=r"jobs\.a: retries: -1 is out of range"):
        graph_call(plan(a={"retries": -1}), None, None)
    with pytest.raises(UsageError, match=r"jobs\.a: after: 'True' is no id"):
        graph_call(plan(a={"after": [True]}), None, None)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """That there is none, or that it is no TOML, with the line."""
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none.toml")
    file = tmp_path / "g.toml"
    file.write_text('[jobs.a]\nfunction = "m:f"\nargs = =\n')
    with pytest.raises(UsageError, match=r"g\.toml is no TOML: .*line"):
        read(file)
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is no TOML"):
        read(str(file))
    file.write_text('[jobs.a]\nfunction = "m:f"\n')
    assert read(file).nodes[0].function == "m:f"


# -- drawings --


def drawn(graph: dict[Key, list[Key]], *, plain: bool = False) -> list[str]:
    """Return the lines of a graph whose jobs come after these others."""
    edges = {
        key: [Source(o, When.SUCCEEDED, False) for o in others] for key, others in graph.items()
    }
    return [f"{prefix}{key}" for prefix, key in tree(edges, PLAIN if plain else FINE)]


def test_each_job_stands_once_under_the_deepest_of_its_sources() -> None:
    """So that a line is never above one that it comes after."""
    graph: dict[Key, list[Key]] = {
        "a": [],
        "b": ["a"],
        "c": ["a"],
        "d": ["b", "c", "a"],
        "e": ["b"],
        "x": [],
    }
    assert drawn(graph) == ["a", "├─ b", "│  ├─ d", "│  └─ e", "└─ c", "x"]
    assert drawn(graph, plain=True) == ["a", "|- b", "|  |- d", "|  `- e", "`- c", "x"]


def test_a_long_chain_is_drawn() -> None:
    """However deep it is; from some depth on it goes straight down."""
    graph: dict[Key, list[Key]] = {n: [n - 1] if n else [] for n in range(3_000)}
    lines = drawn(graph)
    assert len(lines) == 3_000
    assert lines[2] == "   └─ 2"
    assert max(map(len, lines)) < 80


def test_sources_that_are_not_drawn_are_named_all_the_same() -> None:
    """With what each has to come to, and on one line whatever their names are."""
    assert drawn({8: [7]}) == ["8"]
    sources = [
        Source(7, When.SUCCEEDED, True),
        Source("a\nb", When.ENDED, False),
        Source("c", When.FAILED, False),
    ]
    assert sources_text(sources) == "7 (value), any a\\nb, fail c"
