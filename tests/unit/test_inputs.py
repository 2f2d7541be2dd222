"""Results of other jobs among arguments: what travels, and what comes out of it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd import payload
from jobd.inputs import Input, JobResult, Reference
from jobd.model.errors import AlreadyTaken, ResultExpired
from jobd.model.job import EXPIRED, TAKEN
from jobd.model.path import NoSuchPart


@dataclass
class Box:
    """Something that JSON cannot say."""

    content: Any


def values(*found: object) -> list[bytes]:
    """Encode the values of inputs, as their jobs' workers do."""
    return [payload.encode(value) for value in found]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_takes_the_place_of_its_reference(as_json: bool) -> None:  # noqa: FBT001  # a case
    """At any depth, by position and by name, each input once."""
    a, b = JobResult(7), JobResult(8, ("rows", 0))
    named: dict[str, object] = {"data": b, "n": None}
    data, inputs = payload.encode_call((a, 1, [b, {"k": a}]), named, json=as_json)
    assert data[:1] == (b"R" if as_json else b"r")
    assert inputs == [7, 8]
    args, kwargs, wanted = payload.decode_call(data, values("x", {"rows": [5]}))
    assert (args, kwargs) == (["x", 1, [5, {"k": "x"}]], {"data": 5, "n": None})
    assert wanted is as_json


def test_a_reference_is_found_in_what_only_a_pickle_can_say() -> None:
    """In objects, in tuples, as keys' values: wherever pickle goes."""
    data, inputs = payload.encode_call((Box([JobResult(3)]),), {"t": (JobResult(4, (0,)), {1, 2})})
    assert data[:1] == b"p"
    assert inputs == [3, 4]
    args, kwargs, _ = payload.decode_call(data, values("x", [9]))
    assert args == [Box(["x"])]
    assert kwargs == {"t": (9, {1, 2})}


def test_a_job_that_has_no_id_yet_is_named_by_its_submits_key() -> None:
    """A chain can be submitted before the first answer is there."""

    class Unanswered(Reference):
        def input_of(self) -> Input:
            return b"k" * 16 + (2).to_bytes(8, "big")

    _, inputs = payload.encode_call((Unanswered(), Unanswered()), {})
    assert inputs == [b"k" * 16 + (2).to_bytes(8, "big")]


def test_a_call_without_references_is_encoded_as_ever() -> None:
    """And has no inputs."""
    assert payload.encode_call((1, [2]), {"a": None}) == (b'j[[1,[2]],{"a":null}]', [])
    assert payload.encode_call(((1,),), {})[1] == []


def test_a_result_that_is_gone_is_told() -> None:
    """Taken and expired are two different things, and the job's id is named."""
    data, _ = payload.encode_call((JobResult(7),), {})
    with pytest.raises(AlreadyTaken, match="job 7 was taken"):
        payload.decode_call(data, [TAKEN + b" 7"])
    with pytest.raises(ResultExpired, match="job 7 has expired"):
        payload.decode_call(data, [EXPIRED + b" 7"])


def test_a_part_that_is_missing_is_told() -> None:
    """From JSON and from a pickle alike."""
    for call in ((JobResult(7, (3,)),), (Box(JobResult(7, (3,))),)):
        data, _ = payload.encode_call(call, {})
        with pytest.raises(NoSuchPart, match=r"no \[3\]"):
            payload.decode_call(data, values([1]))


def test_a_reference_cannot_be_pickled_by_itself() -> None:
    """Outside a call there is nothing that could give it its value; nor is there in a result."""
    with pytest.raises(TypeError, match="only as an argument"):
        pickle.dumps(JobResult(7))
    with pytest.raises(payload.Unencodable, match="only as an argument"):
        payload.encode(JobResult(7))


def test_a_call_is_shown_with_its_references_as_they_are_written() -> None:
    """Without a look at any value, and without unpickling."""
    data, inputs = payload.encode_call((JobResult(7, ("rows", 0)), "x"), {"k": [JobResult(8)]})
    assert payload.shown_call(data, [n for n in inputs if isinstance(n, int)]) == (
        ["@job:7.rows[0]", "x"],
        {"k": ["@job:8"]},
    )
    assert payload.shown_call(payload.encode_call((Box(1),), {})[0], []) is None


PLAIN = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.integers(1, 3).map(JobResult),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


@given(st.lists(PLAIN, max_size=3))
def test_any_nesting_comes_through(args: list[Any]) -> None:
    """With every reference replaced by its value, and nothing else."""

    def filled(value: Any) -> Any:
        if isinstance(value, JobResult):
            return {"of": value.number}
        if isinstance(value, list):
            return [filled(item) for item in value]
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return value

    data, inputs = payload.encode_call(tuple(args), {})
    found, _, _ = payload.decode_call(data, values(*({"of": n} for n in inputs)))
    assert found == filled(args)
