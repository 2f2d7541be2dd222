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
    from jobd.client.sync import Stream


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
    warned = False
    while (item := stream.read_encoded()) is not None:
        text, is_json = payload.shown(item)
        if stream.missed and not warned:
            session.note(f"jobd: items 1 to {stream.missed} were consumed before, and are gone")
        if not is_json and not warned:
            session.note("jobd: items that are not JSON-able are shown as their repr")
        warned = warned or bool(stream.missed) or not is_json
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
    while (item := stream.read_encoded()) is not None:
        text, is_json = payload.shown(item)
        session.write_bytes(separator + _line(session, text, is_json=is_json))
        session.streaming = True
        separator = b",\n"
    ended = stream.ended
    assert ended is not None
    end = render.result_json(ended if ended.inline else outcome.fetch(client, number))
    rest = session.encode_json({name: end[name] for name in end if name not in {"schema", "id"}})
    session.write_bytes((b"" if session.streaming else separator) + b"]," + rest[1:] + b"\n")
    return EXIT_CODES[ended.state]
