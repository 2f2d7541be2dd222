"""How a job ended, told to whoever waits for it: its value, or why there is none.

A value needs no more than is imported here; what words need is imported with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jobd import payload
from jobd.cli.durations import show_duration
from jobd.client.deferred import ended_of
from jobd.inputs import refuse_gone
from jobd.model.edges import success_of
from jobd.model.errors import NotFound, NotReady, WaitTimeout
from jobd.model.item import shown
from jobd.model.messages import Ended, Fetched
from jobd.model.states import ENDED, EXIT_CODES, NAMES, State

if TYPE_CHECKING:
    from jobd.cli.session import Session
    from jobd.client import Client
    from jobd.model.job import AtBound


def fetch(client: Client, number: int) -> Ended:
    """Return how a job ended, with its value.

    Raises:
        NotReady: it has not ended.
        NotFound: there is no such job.
    """
    return ended_from(client.fetch(number))


def ended_from(fetched: Fetched) -> Ended:
    """Return how a job ended that was fetched; raises as ``fetch``."""
    number = fetched.id
    if fetched.state < ENDED:
        raise NotReady(
            f"job {shown(number)} is {NAMES[fetched.state]}: there is no result yet",
            f"'jobd result --wait {shown(number)}' waits for it",
        )
    return ended_of(fetched)


def wait(session: Session, client: Client, number: int, timeout_s: float | None) -> Ended:
    """Wait for a job's end, and return it with its value.

    Raises:
        WaitTimeout: it has not ended in time.
        NotFound: there is no such job.
    """
    ended = wait_all(session, client, [number], timeout_s)[number]
    if not ended.inline:
        ended = ended_of(client.fetch(number))
    return ended


def wait_all(
    session: Session, client: Client, numbers: list[int], timeout_s: float | None
) -> dict[int, Ended]:
    """Wait until these jobs have ended; return how, by id, without large values.

    Raises:
        WaitTimeout: one has not ended in time.
        NotFound: one does not exist.
    """
    session.attached = numbers
    try:
        told = _TellStuck(session)
        if not session.watched:
            return client.wait(numbers, timeout_s, stuck=told)
        from jobd.cli.progress import Bars  # noqa: PLC0415  # somebody looks on

        with Bars() as bars:
            return client.wait(numbers, timeout_s, progress=bars.show, stuck=told)
    except WaitTimeout:
        if timeout_s is None:  # it is the daemon that does not answer
            raise
        who = (
            f"job {shown(numbers[0])} has" if len(numbers) == 1 else f"the {len(numbers)} jobs have"
        )
        problem = f"{who} not ended within {show_duration(timeout_s)}"
        raise WaitTimeout(problem, "nothing was stopped; wait again or leave it") from None


class _TellStuck:
    """Says once of each job that it waits for a consumer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._told: set[int] = set()

    def __call__(self, number: int, at_bound: AtBound) -> None:
        """Say so."""
        from jobd.cli.render import at_bound_text  # noqa: PLC0415  # words

        if number not in self._told:
            self._told.add(number)
            self._session.note(f"jobd: job {number} {at_bound_text(number, at_bound)}")


def tell(session: Session, ended: Ended) -> int:
    """Print a job's value, or complain about its failure; return the exit code that mirrors it.

    Raises:
        AlreadyTaken, ResultExpired: it succeeded, and its value is not there any more.
    """
    if ended.state is State.SUCCEEDED and ended.value is None:
        raise NotFound(f"the result of job {shown(ended.id)} is gone", "submit it again")
    refuse_gone(ended.value or b"", ended.id)
    if session.json:
        from jobd.cli.render import result_json  # noqa: PLC0415  # words

        session.write_json(result_json(ended))
    elif ended.state is State.SUCCEEDED and ended.value is not None:
        _print_value(session, ended.value)
    else:
        complain(session, ended)
    return EXIT_CODES[ended.state]


def complain(session: Session, ended: Ended) -> None:
    """Say on stderr why a job has no value; with ``--verbose`` where in its code."""
    if session.json or ended.state is State.SUCCEEDED:
        return
    traceback = ended.error.traceback if ended.error else ""
    if session.verbose and traceback:
        session.complain(traceback.rstrip())
    hint = ""
    if ended.state is State.ABORTED and ended.cause == success_of(ended.root):
        pass  # nothing to mend: it was to run only if that had failed
    elif ended.state is State.ABORTED and not session.quiet:
        hint = (
            f" (see 'jobd show {ended.root}'; 'jobd retry {ended.root}' gives both another round)"
        )
    elif ended.state not in (State.CANCELLED, State.EXPIRED) and not session.quiet:
        who = shown(ended.id)
        hint = f" (see 'jobd logs {who}', 'jobd show {who}')"
    from jobd.cli.render import failure_text  # noqa: PLC0415  # words

    session.complain(failure_text(ended) + hint)


def _print_value(session: Session, value: bytes) -> None:
    """Print a text as it is, and any other value as JSON; what JSON cannot say as its repr."""
    text, is_json = payload.shown(value)
    if not is_json:
        session.note("jobd: the result is not JSON-able, or too large for that: this is its repr")
    elif text.startswith('"'):
        text = msgspec.json.decode(text, type=str)
    session.write(text)
