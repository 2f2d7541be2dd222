"""From a function and its arguments to the message that submits them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypedDict

import msgspec

from jobd import payload
from jobd.client.files import Draft
from jobd.client.functions import Function, Shape, named
from jobd.inputs import Input
from jobd.model.errors import UsageError
from jobd.model.job import DEFAULTS, JobOptions
from jobd.model.messages import Put, Submit

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
    function: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: JobOptions | None,
    draft: Draft | None,
) -> Submit:
    """Return the submit of one call, whose large arguments go where ``draft`` says.

    Raises:
        UsageError: the function or an argument cannot travel.
        DiskFull, PayloadNotStored: an argument's file cannot be written.
    """
    try:
        call, inputs = _encode(args, kwargs, draft, 0)
        shapes = [(len(args), tuple(kwargs))]
        return _submit_of(function, [call], shapes, [inputs], options, draft)
    except BaseException:
        _discard(draft)
        raise


def many_calls(
    function: Function,
    calls: Iterable[Sequence[Any]],
    options: JobOptions | None,
    draft: Draft | None,
) -> Submit:
    """Return the submit of one call for each sequence of positional arguments.

    Raises:
        UsageError, DiskFull, PayloadNotStored: as for ``one_call``.
    """
    arguments = [tuple(call) for call in calls]
    shapes: list[Shape] = [(count, ()) for count in sorted({len(call) for call in arguments})]
    try:
        encoded = [_encode(call, {}, draft, index) for index, call in enumerate(arguments)]
        data, inputs = [data for data, _ in encoded], [jobs for _, jobs in encoded]
        return _submit_of(function, data, shapes, inputs, options, draft)
    except BaseException:
        _discard(draft)
        raise


def put_call(value: object, draft: Draft | None) -> Put:
    """Return the request that stores a value.

    Raises:
        UsageError: it cannot travel.
        DiskFull, PayloadNotStored: its file cannot be written.
    """
    from jobd.pool.failure import safe_repr  # noqa: PLC0415  # takes long, and few need it

    spot = None if draft is None else draft.spot(0)
    try:
        data = payload.encode(value, shown_as=safe_repr, spot=spot)
    except payload.Unencodable as error:
        raise UsageError(f"the value cannot travel: {error}", "put plain data") from error
    return Put(0, draft.key if draft else b"", data)


def _discard(draft: Draft | None) -> None:
    if draft is not None:
        draft.discard()


def _submit_of(  # all that a submit is made of
    function: Function,
    calls: list[bytes],
    shapes: list[Shape],
    inputs: list[list[Input]],
    options: JobOptions | None,
    draft: Draft | None,
) -> Submit:
    name, pickled = named(function, shapes)
    key = draft.key if draft else b""
    request = Submit(0, key, name, calls, shapes, check=True, watch=True, options=options)
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


def _encode(
    args: tuple[Any, ...], kwargs: dict[str, Any], draft: Draft | None, index: int
) -> tuple[bytes, list[Input]]:
    spot = None if draft is None else draft.spot(index)
    try:
        return payload.encode_call(args, kwargs, spot=spot)
    except payload.Unencodable as error:
        from jobd.client.blame import blamed  # noqa: PLC0415  # only an error needs it

        given = {f"argument {number}": value for number, value in enumerate(args, 1)}
        given |= {f"argument {name}": value for name, value in kwargs.items()}
        culprit = blamed(given, lambda value: payload.encode_call((value,), {}))
        raise UsageError(
            f"{culprit} cannot travel to the worker: {error}", "pass plain data, or its name"
        ) from error
