"""From a function and its arguments to the message that submits them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypedDict

import msgspec

from jobd import payload
from jobd.client.blame import blamed
from jobd.client.functions import Function, Shape, named
from jobd.inputs import Input
from jobd.model.errors import UsageError
from jobd.model.job import DEFAULTS, JobOptions
from jobd.model.messages import Submit

BULK = 10_000
"""Calls that ``map`` sends in one message."""


class Options(TypedDict, total=False):
    """What ``options`` takes: what concerns the job, and not its function.

    queue: the name of the queue that the job waits in.
    name: what the job is called where people see it.
    bound: for a generator, how many items it may be ahead of its consumers.
    """

    queue: str
    name: str
    bound: int


def with_options(options: JobOptions | None, given: Options) -> JobOptions:
    """Return options that are as before but for those given.

    Raises:
        UsageError: there is no such option, or it is of another type.
    """
    fields = {field.name: field for field in msgspec.structs.fields(JobOptions)}
    for name, value in given.items():
        if name not in fields:
            raise UsageError(f"a job has no option {name!r}", f"there are {', '.join(fields)}")
        try:
            msgspec.convert(value, fields[name].type)
        except msgspec.ValidationError as error:
            raise UsageError(f"the option {name} cannot be {value!r}", str(error)) from None
    return msgspec.structs.replace(options or DEFAULTS, **given)


def one_call(
    function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], options: JobOptions | None
) -> Submit:
    """Return the submit of one call.

    Raises:
        UsageError: the function or an argument cannot travel.
    """
    call, inputs = _encode(args, kwargs)
    return _submit_of(function, [call], [(len(args), tuple(kwargs))], [inputs], options)


def many_calls(
    function: Function, calls: Iterable[Sequence[Any]], options: JobOptions | None
) -> Submit:
    """Return the submit of one call for each sequence of positional arguments.

    Raises:
        UsageError: the function or an argument cannot travel.
    """
    arguments = [tuple(call) for call in calls]
    shapes: list[Shape] = [(count, ()) for count in sorted({len(call) for call in arguments})]
    encoded = [_encode(call, {}) for call in arguments]
    data, inputs = [data for data, _ in encoded], [jobs for _, jobs in encoded]
    return _submit_of(function, data, shapes, inputs, options)


def _submit_of(
    function: Function,
    calls: list[bytes],
    shapes: list[Shape],
    inputs: list[list[Input]],
    options: JobOptions | None,
) -> Submit:
    name, pickled = named(function, shapes)
    request = Submit(0, b"", name, calls, shapes, check=True, watch=True, options=options)
    if any(inputs):
        request.inputs = inputs
    if pickled:
        request.args = [payload.encode_by_value(pickled, call) for call in calls]
        request.by_value = True
    return request


def in_bulks(items: Iterable[Any]) -> Iterator[list[tuple[Any]]]:
    """Yield calls with one argument each, as many together as are sent in one message."""
    left = iter(items)
    while chunk := [(item,) for item in islice(left, BULK)]:
        yield chunk


def _encode(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, list[Input]]:
    try:
        return payload.encode_call(args, kwargs)
    except payload.Unencodable as error:
        given = {f"argument {number}": value for number, value in enumerate(args, 1)}
        given |= {f"argument {name}": value for name, value in kwargs.items()}
        culprit = blamed(given, lambda value: payload.encode_call((value,), {}))
        raise UsageError(
            f"{culprit} cannot travel to the worker: {error}", "pass plain data, or its name"
        ) from error
