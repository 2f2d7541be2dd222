"""A stream's items on their way to stdout, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jobd import payload
from jobd.cli import outcome, render
from jobd.model.states import EXIT_CODES

if TYPE_CHECKING:
    from jobd.cli.session import Session
    from jobd.client import Client
    from jobd.client.sync_api import Stream


def follow(session: Session, client: Client, number: int) -> int:
    """Print the items of a job as they come; return the exit code that mirrors the job.

    Raises:
        NotFound: there is no such job.
        UsageError: it is no stream.
    """
    session.attached, session.again = [number], "follow"
    stream = iter(client.attach(number))
    try:
        if session.json:
            return _write_json(session, client, stream, number)
        return _write_lines(session, stream)
    except KeyboardInterrupt:
        stream.detach()
        raise
    finally:
        stream.close()


def _write_lines(session: Session, stream: Stream) -> int:
    told_missed = told_repr = False
    while (item := stream.read_encoded()) is not None:
        text, is_json = payload.shown(item)
        if stream.missed and not told_missed:
            told_missed = True
            session.note(f"jobd: items 1 to {stream.missed} were consumed before, and are gone")
        if not is_json and not told_repr:
            told_repr = True
            session.note(
                "jobd: items that are not JSON-able, or too large for that, are shown as their repr"
            )
        session.write_bytes(_line(session, text, is_json=is_json) + b"\n")
    ended = stream.ended
    assert ended is not None
    outcome.complain(session, ended)
    return EXIT_CODES[ended.state]


def _line(session: Session, text: str, *, is_json: bool) -> bytes:
    return session.encode_json(msgspec.Raw(text.encode()) if is_json else text)


def _write_json(session: Session, client: Client, stream: Stream, number: int) -> int:
    """Write ``jobd.items/1`` item by item: there may be no end of them."""
    separator = b'{"schema":"jobd.items/1","id":%d,"items":[' % number
    count, reprs = 0, []
    while (item := stream.read_encoded()) is not None:
        text, is_json = payload.shown(item)
        if not is_json:
            reprs.append(count)
        count += 1
        session.write_part(separator + _line(session, text, is_json=is_json), {"reprs": reprs})
        separator = b",\n"
    ended = stream.ended
    assert ended is not None
    end = render.result_json(ended if ended.inline else outcome.fetch(client, number))
    rest = {name: end[name] for name in end if name not in {"schema", "id"}} | {"reprs": reprs}
    session.close_json(b"" if count else separator, rest)
    return EXIT_CODES[ended.state]
