"""From a function and its arguments to the message that submits them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jobd import payload
from jobd.client.caller import travelling, variables_of, with_files, with_patterns
from jobd.client.functions import Function, Shape, named
from jobd.inputs import Input, Reference
from jobd.model.blob import CODEC
from jobd.model.edges import OPTIONS as AFTER
from jobd.model.errors import JobdError, UsageError
from jobd.model.job import NO_ARGS, ArraySpec
from jobd.model.messages import Apply, Put, Submit
from jobd.model.options import Said, edges_of, encode_options, laid_over, parse_options
from jobd.model.stretch import mixed

if TYPE_CHECKING:
    from jobd.client.drafts import Draft
    from jobd.client.graphs import Node, Plan
    from jobd.client.options import Options

T = TypeVar("T")

CHUNK = 1_000
CHUNK_BYTES = 64 * 1024
"""Calls of an array that are stored in one row: so many, or so large if it is not one call only."""


def with_options(options: Said | None, given: Options) -> Said:
    """Return options that are as before but for those given.

    Raises:
        UsageError: there is no such option, or its value cannot be used.
    """
    named = {name: _named(value) if name in AFTER else value for name, value in given.items()}
    return laid_over(options or {}, with_files(parse_options(named)))


def _named(jobs: object) -> object:
    """Return what a submit calls jobs that Python has deferred results of; the rest as it is."""
    if isinstance(jobs, Reference):
        if jobs.path_of():
            raise UsageError(f"{jobs!r} is a part of a result", "name the job that it is of")
        return jobs.input_of()
    if isinstance(jobs, Iterable) and not isinstance(jobs, str | bytes):
        return [_named(job) for job in jobs]
    return jobs


def one_call(
    function: Function,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: Said | None,
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
    options: Said | None,
    draft: Draft | None,
) -> Submit:
    """Return the submit of one call for each sequence of positional arguments.

    Raises:
        UsageError, DiskFull, PayloadNotStored: as for ``one_call``.
    """
    try:
        return _submit_of(function, *_encode_all(calls, draft), options, draft)
    except BaseException:
        _discard(draft)
        raise


def array_call(
    function: Function,
    calls: Iterable[Sequence[Any]],
    options: Said | None,
    draft: Draft | None,
    spec: ArraySpec,
) -> Submit:
    """Return the submit of an array, with an item for each sequence of positional arguments.

    Where an item has to be a job of its own (an argument is a result, or lies in a file), it is the submit
    of as many jobs: then it has no ``array``.

    Raises:
        UsageError, DiskFull, PayloadNotStored: as for ``one_call``.
    """
    arguments = [tuple(call) for call in calls]
    shapes = _shapes_of(arguments)
    try:
        chunks: list[tuple[int, bytes]] = []
        for start in range(0, len(arguments), CHUNK):
            for part in _chunks_of(arguments[start : start + CHUNK], draft):
                if part is None:
                    return many_calls(function, arguments, options, draft)
                chunks.append(part)
        request = _submit_of(function, [NO_ARGS], shapes, [], options, draft)
    except BaseException:
        _discard(draft)
        raise
    request.array, request.chunks = msgspec.structs.replace(spec, items=len(arguments)), chunks
    return request


def _chunks_of(
    calls: list[tuple[Any, ...]], draft: Draft | None
) -> Iterator[tuple[int, bytes] | None]:
    """Yield calls as chunks, how many and these; None: one of them has to be a job of its own."""
    data = payload.encode_chunk(calls)
    if data and (len(data) <= CHUNK_BYTES or len(calls) == 1):
        yield len(calls), data
        return
    if len(calls) > 1 and data:
        half = len(calls) // 2
        yield from _chunks_of(calls[:half], draft)
        yield from _chunks_of(calls[half:], draft)
        return
    encoded = []
    for call in calls:
        one, inputs = _encode(call, {}, draft, 0)
        if inputs or one[:1] == CODEC:
            yield None
            return
        encoded.append(one)
    yield from chunks_of(encoded)


def array_submit(
    function: str,
    chunks: list[tuple[int, bytes]],
    shapes: list[Shape],
    spec: ArraySpec,
    inputs: list[Input],
    options: Said | None,
) -> Submit:
    """Return the submit of an array whose calls are encoded; all have the same ``inputs``."""
    request = Submit(0, b"", function, [NO_ARGS], shapes, check=True, watch=True)
    if options:
        request.options, request.after = encode_options(travelling(options)), edges_of(options)
    if inputs:
        request.inputs = [inputs]
    request.array = msgspec.structs.replace(spec, items=sum(count for count, _ in chunks))
    request.chunks = chunks
    return request


def chunks_of(calls: list[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield calls that are encoded one by one as chunks: how many, and these."""
    at = 0
    while at < len(calls):
        part = calls[at : at + CHUNK]
        while len(part) > 1 and (size := sum(map(len, part))) > CHUNK_BYTES:
            part = part[: max(1, len(part) * CHUNK_BYTES // size)]
        yield len(part), mixed(part)
        at += len(part)


def _shapes_of(arguments: list[tuple[Any, ...]]) -> list[Shape]:
    return [(count, ()) for count in sorted(set(map(len, arguments)))]


def _encode_all(
    calls: Iterable[Sequence[Any]], draft: Draft | None
) -> tuple[list[bytes], list[Shape], list[list[Input]]]:
    """Return each call as bytes, the counts of arguments, and each call's inputs if any has one."""
    arguments = [tuple(call) for call in calls]
    shapes = _shapes_of(arguments)
    plain = payload.encode_plain
    data = [plain(call, draft) for call in arguments]
    inputs: list[list[Input]] = []
    if not all(data):
        inputs = [[] for _ in data]
        for index, call in enumerate(arguments):
            if not data[index]:
                data[index], inputs[index] = _encode(call, {}, draft, index)
    return data, shapes, inputs


def graph_call(
    plan: Plan,
    options: Said | None,
    draft: Draft | None,
    *,
    json: bool = False,
    check: bool = True,
) -> Apply:
    """Return the submit of a graph of jobs, which have ``options`` but for those of their own.

    With ``json`` their results are wanted as JSON, and their arguments must be.

    Raises:
        UsageError, DiskFull, PayloadNotStored: as for ``one_call``.
    """
    request = Apply(0, b"", [], watch=True)
    try:
        for place, node in enumerate(plan.nodes):
            with _about(node.name):
                said = with_patterns(_said_of(node, options))
                call = _node_call(plan, place, said, draft, json=json)
            if "inherit_env" in said and not request.environment:
                request.environment = variables_of(said)
            call.check = check and node.check
            request.jobs.append(call)
    except BaseException:
        _discard(draft)
        raise
    request.uid = draft.key if draft else b""
    return request


def _node_call(plan: Plan, place: int, said: Said, draft: Draft | None, *, json: bool) -> Submit:
    node = plan.nodes[place]
    data, inputs = _encode(tuple(node.args), node.kwargs, draft, place, json=json)
    if json and data[:1] == b"p":
        raise UsageError(
            "an argument is nothing that JSON can say", "dates, inf and nan can be passed as texts"
        )
    shapes: list[Shape] = [(len(node.args), tuple(node.kwargs))]
    return _submit_of(node.function, [data], shapes, [inputs], said, draft)


def _said_of(node: Node, options: Said | None) -> Said:
    """Return the options of a job of a graph."""
    given: dict[str, Any] = {"name": node.name, **node.options}
    for word in AFTER.keys() & given:
        given[word] = [*(options or {}).get(word, ()), *given[word]]  # type: ignore[misc]  # a list of names
    return with_options(options, given)  # type: ignore[arg-type]  # checked there


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Say of an error which job of a graph it is about."""
    try:
        yield
    except JobdError as error:
        raise type(error)(f"jobs.{name}: {error.message}", error.hint) from None


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
    options: Said | None,
    draft: Draft | None,
) -> Submit:
    name, pickled = named(function, shapes)
    key = draft.key if draft else b""
    request = Submit(0, key, name, calls, shapes, check=True, watch=True)
    if options:
        request.options, request.after = encode_options(travelling(options)), edges_of(options)
    if any(inputs):
        request.inputs = inputs
    if pickled:
        request.args = [payload.encode_by_value(pickled, call) for call in calls]
        request.by_value = True
    return request


def _encode(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    draft: Draft | None,
    index: int,
    *,
    json: bool = False,
) -> tuple[bytes, list[Input]]:
    spot = None if draft is None else draft.spot(index)
    try:
        return payload.encode_call(args, kwargs, json=json, spot=spot)
    except payload.Unencodable as error:
        from jobd.client.blame import blamed  # noqa: PLC0415  # only an error needs it

        given = {f"argument {number}": value for number, value in enumerate(args, 1)}
        given |= {f"argument {name}": value for name, value in kwargs.items()}
        culprit = blamed(given, lambda value: payload.encode_call((value,), {}))
        raise UsageError(
            f"{culprit} cannot travel to the worker: {error}", "pass plain data, or its name"
        ) from error
