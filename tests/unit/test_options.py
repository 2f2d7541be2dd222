"""The options of jobs: how they are written, what is refused, and which default wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobd.model.edges import OPTIONS as AFTER
from jobd.model.edges import When
from jobd.model.environment import decoded
from jobd.model.errors import UsageError
from jobd.model.options import (
    BUILT_IN,
    OPTIONS,
    Layers,
    Policy,
    check_default,
    decode_options,
    edges_of,
    encode_options,
    parse_backoff,
    parse_options,
    retry_delay_s,
)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("retries", "3", 3),
        ("retries", 3, 3),
        ("timeout", "1h30m", 5400.0),
        ("timeout", 2, 2.0),
        ("timeout", timedelta(minutes=2), 120.0),
        ("mem", "2G", 2 * 1024**3),
        ("mem", "1.5K", 1536),
        ("mem", 4096, 4096),
        ("retry_on", "ValueError, socket.timeout", ["ValueError", "socket.timeout"]),
        ("retry_on", [ValueError, "OSError"], ["ValueError", "OSError"]),
        ("backoff", "1s,10s,1m", "1s,10s,1m"),
        ("backoff", [1, 10], "1,10"),
        ("backoff", 5, "5"),
        ("jitter", "0.5", 0.5),
        ("in_", "10s", 10.0),
        ("at", "2026-12-24T18:00+01:00", 1_798_131_600_000_000),
        ("at", datetime(2026, 12, 24, 17, tzinfo=UTC), 1_798_131_600_000_000),
        ("after", 7, [7]),
        ("after", "7, 8", [7, 8]),
        ("after_any", ("7,8", "9"), [7, 8, 9]),
        ("after_fail", [7, b"key"], [7, b"key"]),
        ("env", ("A=1", "B=x=y", "A="), {"A": "", "B": "x=y"}),
        ("env", "A=1", {"A": "1"}),
        ("env", {"A": 1, "B": Path("/b"), "C": "c"}, {"A": "1", "B": "/b", "C": "c"}),
        ("env_file", (".env", Path("/x")), [".env", "/x"]),
        ("env_file", ".env", [".env"]),
        ("inherit_env", True, True),
        ("inherit_env", ["*", "!A"], ["*", "!A"]),
        ("cwd", "/usr/../tmp/", "/tmp"),  # noqa: S108  # a name only
        ("cwd", Path("/srv"), "/srv"),
        ("cwd", "sub", f"{Path.cwd()}/sub"),
        ("argv", ("a", "--verbose"), ["a", "--verbose"]),
        ("argv", [Path("/in"), ""], ["/in", ""]),
    ],
)
def test_a_value_means_the_same_however_it_is_given(
    name: str, given: object, value: object
) -> None:
    """As a text, as the command line and the environment have it, or as Python has it."""
    key = name.rstrip("_")
    assert parse_options({name: given}) == {key: value}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"retries": "-1"}, "retries: -1 is out of range"),
        ({"retries": "x"}, "retries: 'x' is not a whole number"),
        ({"retries": True}, "retries: True is not a whole number"),
        ({"retries": 1.5}, "retries: 1.5 is not a whole number"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a duration"),
        ({"timeout": -1}, "timeout: -1 is not a duration"),
        ({"timeout": float("nan")}, "timeout: nan is not a duration"),
        ({"timeout": None, "soft_timeout": []}, r"soft_timeout: \[\] is not a duration"),
        ({"mem": "much"}, "mem: 'much' is not a size"),
        ({"mem": 1.5}, "mem: 1.5 is not a size"),
        ({"jitter": 2}, "jitter: 2 is no number here"),
        ({"jitter": "x"}, "jitter: 'x' is no number here"),
        ({"at": "tomorrow"}, "at: 'tomorrow' is not an instant"),
        ({"at": "tomorrow noon"}, "at: 'tomorrow noon' is not an instant"),
        ({"at": "yesterday-ish"}, "at: 'yesterday-ish' is not an instant"),
        ({"at": 5}, "at: 5 is not an instant"),
        ({"at": "9999-01-01"}, "is too far away"),
        ({"in": "1s", "at": "2026-12-24"}, "exclude each other"),
        ({"backoff": "cubic:1s"}, "'cubic:1s' is not a backoff"),
        ({"backoff": "linear:1s,2s"}, "'linear:1s,2s' is not a backoff"),
        ({"retry_on": "no name"}, "'no name' are no names of exceptions"),
        ({"retry_on": ""}, "'' are no names of exceptions"),
        ({"retry_on": 5}, "5 are no names of exceptions"),
        ({"queue": ""}, "queue: '' is no name here"),
        ({"name": "a\nb"}, "is no name here"),
        ({"retrys": 3}, "there is no option 'retrys'"),
        ({"after": ""}, "after: '' is no id of a job"),
        ({"after": "7,,8"}, "after: '' is no id of a job"),
        ({"after": 0}, "after: '0' is no id of a job"),
        ({"after_any": -1}, "after_any: '-1' is no id of a job"),
        ({"after_any": "last"}, "after_any: 'last' is no id of a job"),
        ({"after_fail": []}, r"after_fail: \[\] names no jobs"),
        ({"after_fail": 1.5}, "after_fail: 1.5 names no jobs"),
        ({"after_fail": True}, "after_fail: 'True' is no id of a job"),
        ({"after_fail": 2**63}, "is no id of a job"),
        ({"env": "A"}, "env: a variable has a name and a value, with '=' between"),
        ({"env": ["=x"]}, "env: a variable without a name"),
        ({"env": {"A=B": "x"}}, "env: a variable without a name"),
        ({"env": {"A\0": "x"}}, "env: a variable without a name"),
        ({"env": {1: "x"}}, "env: a variable without a name"),
        ({"env": {"A": "x\0"}}, "env: the value of 'A' has a NUL, or is not UTF-8"),
        ({"env": {"A": "\udcff"}}, "env: the value of 'A' has a NUL, or is not UTF-8"),
        ({"env": {"A": True}}, "env: the value of 'A' is no text"),
        ({"env": {"A": None}}, "env: the value of 'A' is no text"),
        ({"env": {"JOBD_SOCKET": "/x"}}, "env: 'JOBD_SOCKET' is jobd's own to set"),
        ({"env": 5}, "env: these are no variables"),
        ({"env": {"A": "x" * 131072}}, "env: the variables have 131075 bytes, over the limit"),
        ({"inherit_env": "yes"}, "inherit_env: 'yes' is neither true nor false"),
        ({"inherit_env": ["A=B"]}, "inherit_env: 'A=B' is no pattern of names"),
        ({"inherit_env": ["!"]}, "inherit_env: '!' is no pattern of names"),
        ({"cwd": ""}, "cwd: '' is no name of a directory"),
        ({"cwd": "a\0b"}, "is no name of a directory"),
        ({"cwd": "x" * 5000}, "is no name of a directory"),
        ({"cwd": 5}, "cwd: 5 is no name of a directory"),
        ({"argv": 5}, "argv: these are no texts"),
        ({"argv": ["a", 5]}, "argv: these are no texts"),
        ({"argv": ["a\0"]}, "argv: these are no texts"),
        ({"argv": ["x" * 100_000] * 2}, "argv: the words have more than 131072 characters"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_its_name(
    given: dict[str, Any], sentence: str
) -> None:
    """One sentence, whoever asks."""
    with pytest.raises(UsageError, match=sentence):
        parse_options(given)


def test_an_unknown_option_names_the_nearest() -> None:
    """Most are slips."""
    with pytest.raises(UsageError) as caught:
        parse_options({"retrys": 3})
    assert caught.value.hint == "did you mean 'retries'?"


@pytest.mark.parametrize(
    ("text", "delays"),
    [
        ("10s", [10, 10, 10]),
        ("fixed:10s", [10, 10, 10]),
        ("linear:10s", [10, 20, 30]),
        ("exponential:1s", [1, 2, 4]),
        ("1s,10s", [1, 10, 10]),
    ],
)
def test_a_backoff_says_how_long_to_wait_before_each_retry(text: str, delays: list[float]) -> None:
    """The first retry is number 1."""
    assert [parse_backoff(text).delay_s(n) for n in (1, 2, 3)] == delays


def test_the_wait_varies_by_its_jitter_and_is_the_same_each_time_it_is_asked() -> None:
    """Jobs that failed together do not come back together; the scheduler stays deterministic."""
    policy = Policy(backoff="fixed:10s", jitter=0.5)
    waits = [retry_delay_s(policy, job, 1) for job in range(200)]
    assert waits == [retry_delay_s(policy, job, 1) for job in range(200)]
    assert 5 <= min(waits) < 6
    assert 14 < max(waits) <= 15


def test_no_wait_is_longer_than_the_longest() -> None:
    """Exponents grow without end."""
    assert retry_delay_s(Policy(jitter=0, max_backoff=60), 1, 500) == 60


def test_what_is_nearer_to_the_submit_outranks_what_is_further_away() -> None:
    """Submit, function, queue, defaults, built in; and each value tells where it came from."""
    rules: dict[str, Any] = {
        "defaults": {"retries": 1, "timeout": 10.0, "nice": 1},
        "queues.etl": {"retries": 2, "timeout": 20.0},
        "functions.m:f": {"retries": 3, "queue": "etl"},
    }
    layers = Layers.of(rules)
    policy = layers.policy("m:f", {"bound": 7})
    assert policy is not None
    assert (policy.bound, policy.retries, policy.timeout, policy.nice) == (7, 3, 20.0, 1)
    assert (policy.queue, policy.jitter) == ("etl", BUILT_IN.jitter)
    assert policy.origins == {
        "bound": "submit",
        "retries": '[functions."m:f"]',
        "queue": '[functions."m:f"]',
        "timeout": "[queues.etl]",
        "nice": "[defaults]",
    }


def test_what_says_nothing_has_no_policy() -> None:
    """So that an ordinary job pays nothing."""
    assert Layers().policy("m:f", None) is None
    assert Layers(queues={"etl": {"retries": 1}}).policy("m:f", {}) is None


def test_a_policy_comes_back_from_the_store_with_what_was_said_and_nothing_else() -> None:
    """Values that are the built-in ones take no room, so that a new option costs old rows nothing."""
    policy = Layers().policy("m:f", {"retries": 3})
    data = msgspec.msgpack.encode(policy)
    assert msgspec.msgpack.decode(data) == {"retries": 3, "origins": {"retries": "submit"}}
    assert msgspec.msgpack.decode(data, type=Policy) == policy


def test_every_option_is_a_field_of_the_policy_and_the_other_way_round() -> None:
    """Nothing can be said that is not kept; whom a job comes after is no policy, and kept elsewhere."""
    fields = {field.encode_name for field in msgspec.structs.fields(Policy)} - {"origins"}
    assert set(OPTIONS) - set(AFTER) - {"env_file"} == fields  # that becomes a part of env


@pytest.mark.parametrize(
    ("name", "of_queue"),
    [
        *(("name", False), ("at", False), ("queue", True), ("argv", False)),
        *(("env_file", False), ("inherit_env", False)),
    ],
)
def test_what_makes_no_sense_as_a_default_is_refused(name: str, *, of_queue: bool) -> None:
    """A name for every job of a queue tells nothing."""
    with pytest.raises(UsageError):
        check_default(name, "x", of_queue=of_queue)


def test_variables_of_a_submit_are_added_to_those_of_its_function_its_queue_and_all() -> None:
    """One by one: what is nearer wins where both name it, and takes nothing else away."""
    layers = Layers(
        {"env": {"A": "all", "B": "all", "C": "all", "D": "all"}, "cwd": "/all"},
        {"q": {"env": {"B": "queue", "C": "queue", "D": "queue"}}},
        {"m:f": {"env": {"C": "function", "D": "function"}, "cwd": "/function"}},
    )
    kept: list[bytes] = []

    def keep(data: bytes) -> bytes:
        kept.append(data)
        return b"#"

    policy = layers.policy("m:f", {"queue": "q", "env": {"D": "submit"}}, keep)
    assert decoded(kept[0]) == {"A": "all", "B": "queue", "C": "function", "D": "submit"}
    assert policy is not None
    assert (policy.env, policy.cwd, policy.origins["env"]) == (b"#", "/function", "submit")
    other = layers.policy("m:g", None)
    assert other is not None
    assert (decoded(other.env), other.cwd) == (
        {"A": "all", "B": "all", "C": "all", "D": "all"},
        "/all",
    )


def test_variables_are_bounded_together() -> None:
    """Each layer may be small enough by itself."""
    layers = Layers({"env": {"A": "x" * 100_000}})
    with pytest.raises(UsageError, match="200008 bytes, over the limit of 131072") as caught:
        layers.policy("m:f", {"env": {"B": "y" * 100_002}})
    assert "xx" not in str(caught.value)


@pytest.mark.parametrize("said", [{"env_file": [".env"]}, {"inherit_env": True}])
def test_what_only_the_caller_can_look_up_is_no_option_on_the_wire(said: dict[str, Any]) -> None:
    """The daemon has another environment, and maybe other files."""
    with pytest.raises(UsageError, match="caller's variables are to come with the submit"):
        decode_options(encode_options(said))


def test_whom_a_job_comes_after_travels_apart_from_its_policy() -> None:
    """It is another one for nearly each submit, and policies are remembered."""
    said = parse_options({"retries": 2, "after": 7, "after_fail": [8, 9]})
    assert edges_of(said) == [(7, When.SUCCEEDED), (8, When.FAILED), (9, When.FAILED)]
    assert decode_options(encode_options(said)) == {"retries": 2}
    with pytest.raises(UsageError):
        decode_options(msgspec.msgpack.encode({"after": []}))
