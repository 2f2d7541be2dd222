"""Arrays on a command line: submitted, waited for, and their results printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from jobd.cli import outcome, render
from jobd.cli.submission import ArraySettings, Source, clock_notes, said_of, tell_id, with_ids
from jobd.client.caller import travelling
from jobd.client.calls import CHUNK, CHUNK_BYTES
from jobd.inputs import Input
from jobd.model.edges import OPTIONS as AFTER
from jobd.model.errors import NotReady
from jobd.model.item import index_of
from jobd.model.job import TAKEN, TOMBSTONES, ArraySpec, Errors
from jobd.model.messages import Ended, Fetched
from jobd.model.states import ENDED, EXIT_CODES, NAMES, State
from jobd.model.stretch import mixed

if TYPE_CHECKING:
    from jobd.cli.session import Session
    from jobd.client import Client

MIXED = 8
"""The exit code where some items have succeeded, and some have not."""

Shape = tuple[int, tuple[str, ...]]


def submit_array(  # noqa: PLR0913  # what is said on a command line
    session: Session,
    client: Client,
    function: str,
    source: Source,
    options: Mapping[str, object],
    settings: ArraySettings,
    *,
    check: bool,
) -> int:
    """Queue an array, print its id or wait for it; return the exit code.

    Raises:
        UsageError: an item, or an option, cannot be used; then nothing is queued.
    """
    said = said_of(with_ids(client, options))
    if said.get("inherit_env"):
        said = travelling(said, session.load().settings.environment.inherit)
    shapes: dict[Shape, None] = {}
    inputs: list[Input] = []
    chunks = [*_chunks(source, shapes, inputs)]
    spec = ArraySpec(0, settings.max_fails, Errors(settings.errors), settings.slots)
    session.submitting = True
    batch = client.submit_array(
        function, chunks, [*shapes], spec, inputs=inputs, options=said, check=check
    )
    session.attached = [batch.id]
    session.submitting = False
    for sentence in clock_notes(options):
        session.note(f"jobd: {sentence}")
    _follow_up(session, client, batch.id, settings, check=check)
    if settings.wait or settings.wait_timeout is not None:
        return wait_and_tell(session, client, batch.id, settings.wait_timeout)
    return tell_id(session, client, batch.id)


def _chunks(
    source: Source, shapes: dict[Shape, None], inputs: list[Input]
) -> Iterator[tuple[int, bytes]]:
    """Yield the items' calls as they are stored, many together; tell what shapes and inputs they have."""
    part: list[bytes] = []
    size = 0
    for data, shape, named in source.encoded():
        if shape not in shapes:
            shapes[shape] = None
        if named and not inputs:
            inputs += named
        part.append(data)
        size += len(data)
        if len(part) == CHUNK or size >= CHUNK_BYTES:
            yield len(part), _chunk(part)
            part, size = [], 0
    if part:
        yield len(part), _chunk(part)


_NO_KWARGS = b",{}]"


def _chunk(calls: list[bytes]) -> bytes:
    """Return a chunk: JSON in one piece if all have positional arguments only."""
    if all(call[:1] == b"J" and call.endswith(_NO_KWARGS) for call in calls):
        return b"J[" + b",".join([call[2 : -len(_NO_KWARGS)] for call in calls]) + b"]"
    return mixed(calls)


def _follow_up(
    session: Session, client: Client, number: int, settings: ArraySettings, *, check: bool
) -> None:
    """Queue what is to be called once the array has ended, with its number as the argument."""
    for option, function in (
        ("after", settings.then),
        ("after_any", settings.then_any),
        ("after_fail", settings.then_fail),
    ):
        if not function:
            continue
        assert option in AFTER
        (deferred,) = client.submit_encoded(
            function,
            [b"J[[%d],{}]" % number],
            [(1, ())],
            options=said_of({option: (str(number),)}),
            check=check,
        )
        session.note(f"jobd: job {deferred.id} calls {function}({number}) then")


def wait_and_tell(session: Session, client: Client, number: int, timeout_s: float | None) -> int:
    """Wait for an array, and say how its items have ended; return the exit code."""
    outcome.wait_all(session, client, [number], timeout_s)
    (info,) = client.find(number)
    if session.json:
        session.write_json(render.job_json(info))
    assert info.array is not None
    states = {State[name.upper()]: count for name, count in info.array.states.items()}
    if not session.json:
        for line in render.array_lines(info):
            session.note(line)
        if session.quiet or not session.watched:
            session.write(str(number))
    return exit_code(states)


def exit_code(states: Mapping[State, int]) -> int:
    """Return 0 if all items have succeeded, 8 if some have, else what they have in common."""
    ended = [state for state, count in states.items() if count]
    if set(ended) <= {State.SUCCEEDED}:
        return 0
    return MIXED if State.SUCCEEDED in ended else render.exit_code([EXIT_CODES[s] for s in ended])


def tell_results(session: Session, client: Client, fetched: Fetched) -> int:
    """Print what has become of each item of an array that has ended, a line of JSON each; return the exit code.

    Raises:
        NotReady: it has not ended.
    """
    if fetched.state < ENDED:
        raise NotReady(
            f"array {fetched.id} has not ended: some of its results are still to come",
            f"'jobd result --wait {fetched.id}' waits for all, 'jobd ls {fetched.id}' shows what there is",
        )
    states: dict[State, int] = {}

    def lines() -> Iterator[str]:
        for ended in client.batch(fetched.id).ends():
            states[ended.state] = states.get(ended.state, 0) + 1
            yield session.encode_json(item_json(ended)).decode()

    session.write_lines(lines())
    return exit_code(states)


def item_json(ended: Ended) -> dict[str, Any]:
    """Return what has become of an item: ``{"index", "state", "value"}``, or ``"error"``."""
    value = ended.value
    if value is not None and value.startswith(TOMBSTONES):
        gone = "its result was taken" if value.startswith(TAKEN) else "its result has expired"
        ended = msgspec.structs.replace(ended, value=None, cause=gone)
    told = render.result_json(ended)
    found = {"index": index_of(ended.id), "state": NAMES[ended.state]}
    has_value = ended.state is State.SUCCEEDED and ended.value is not None
    for name in ("value", "repr") if has_value else ("cause", "error"):
        if name in told:
            found[name] = told[name]
    return found
