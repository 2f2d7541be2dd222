"""A path into a job's value: how it is written, and where it leads."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.model.errors import UsageError
from jobd.model.path import NoSuchPart, Path, follow, parse_job, show_path


@pytest.mark.parametrize(
    ("text", "job", "path"),
    [
        ("@job:7", 7, ()),
        ("@job:7.rows[0].name", 7, ("rows", 0, "name")),
        ("@job:7[-1]", 7, (-1,)),
        ('@job:7["a b"]', 7, (("a b",),)),
        ("@job:7['it\\'s']", 7, (("it's",),)),
        ('@job:12["0"][0]', 12, (("0",), 0)),
    ],
)
def test_a_reference_names_a_job_and_a_path(text: str, job: int, path: Path) -> None:
    """Names, indexes and keys in any order."""
    assert parse_job(text) == (job, path)


@pytest.mark.parametrize(
    "text",
    [
        *("@job:", "@job:x", "@job:-1", "@job:0", "@job:99999999999999999999", "@job:7x"),
        *("@job:7.", "@job:7[", "@job:7[]", "@job:7[a]", "@job:7 ", "@job:7..a", '@job:7["a]'),
        "@job:7" + ".a" * 101,
    ],
)
def test_what_is_no_reference_is_refused_in_one_line(text: str) -> None:
    """And the error says how one is written, or how to pass the text."""
    with pytest.raises(UsageError) as caught:
        parse_job(text)
    assert len(caught.value.message) < 200
    assert caught.value.hint


class Shop:
    """What jobs may return: fields, a property, and what is none of anybody's business."""

    limit = 3

    def __init__(self) -> None:
        self.name = "corner"
        self._till = 12
        self.os = os
        self.opened = Shop.open

    @property
    def size(self) -> int:
        """A field that is computed."""
        return 40

    def open(self) -> str:
        """A method."""
        return "open"


@pytest.mark.parametrize(("step", "value"), [("name", "corner"), ("size", 40), ("limit", 3)])
def test_a_name_leads_to_a_public_field(step: str, value: object) -> None:
    """One that is computed, or the same for all objects of its class, is one too."""
    assert follow(Shop(), (step,)) == value


@pytest.mark.parametrize(
    "path",
    [
        *(("_till",), ("open",), ("opened",), ("os",), ("__class__",), ("__init__", "__globals__")),
        *(("name", "__class__", "__mro__"), ("name", "upper"), (0,)),
    ],
)
def test_a_path_leads_to_data_only(path: Path) -> None:
    """Or it would lead from any object to all that its process has imported."""
    with pytest.raises(NoSuchPart):
        follow(Shop(), path)


@pytest.mark.parametrize(("value", "path"), [(Shop, ("limit",)), (os, ("name",)), (list, (0,))])
def test_nothing_leads_on_from_code(value: object, path: Path) -> None:
    """A job may return a class or a module; they have no parts."""
    with pytest.raises(NoSuchPart, match="data only"):
        follow({"it": value}, ("it", *path))


STEPS = st.one_of(
    st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True),
    st.integers(-(10**6), 10**6),
    st.tuples(st.text(max_size=6)),
)


@given(st.lists(STEPS, max_size=5).map(tuple))
def test_a_path_reads_as_it_is_shown(path: Path) -> None:
    """Whatever the keys hold."""
    assert parse_job(f"@job:1{show_path(path)}") == (1, path)


@pytest.mark.parametrize(
    ("value", "path", "part"),
    [
        (5, (), 5),
        ({"rows": [{"name": "x"}]}, ("rows", 0, "name"), "x"),
        (SimpleNamespace(rows=(1, 2)), ("rows", -1), 2),
        ({"items": 3}, ("items",), 3),
        ({0: "int", "0": "text"}, (0,), "int"),
        ({0: "int", "0": "text"}, (("0",),), "text"),
        ("text", (1,), "e"),
    ],
)
def test_a_path_leads_to_a_part(value: object, path: Path, part: object) -> None:
    """A key of a mapping comes before an attribute: a dict's own ``items`` is never meant."""
    assert follow(value, path) == part


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ([1, 2], (5,), "an input has no [5]: it is a list of 2 items"),
        ([1], (5,), "an input has no [5]: it is a list of 1 item"),
        ({"rows": 3}, ("rows", "name"), "an input has no .rows.name: .rows is an int"),
        ({"a": {}}, ("a", ("b",)), 'an input has no .a["b"]: .a is a dict'),
        (None, (0,), "an input has no [0]: it is a NoneType"),
    ],
)
def test_a_step_that_is_missing_is_told(value: Any, path: Path, text: str) -> None:
    """In one sentence: which step, and what is there instead."""
    with pytest.raises(NoSuchPart) as caught:
        follow(value, path)
    assert str(caught.value) == text
