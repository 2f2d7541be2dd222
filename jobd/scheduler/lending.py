"""Who waits for whom: may a job wait for others, and lend its slot meanwhile?

The waits of jobs for jobs are a graph.  A wait that would close a cycle in it can never end,
so it is refused, by an error that spells the cycle out; so is one beyond the cap.  A job that
waits lends its slot, but keeps its concurrency key: those who need the key to start wait for
one of those who have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from jobd.model.errors import Deadlock, JobdError, TooManyWaiting
from jobd.model.lane import words_of
from jobd.scheduler.roster import Worker

MOST_AWAITED = 1_000

Inputs = Mapping[int, Iterable[int]]
"""Of each blocked job, the inputs that it waits for."""


class Known(NamedTuple):
    """What keeps jobs from being started."""

    inputs: Inputs
    held: Callable[[int], dict[str, list[int]]]
    """Returns the closed gates of a job that has not started, and who runs with each of them."""


def lent(workers: Iterable[Worker]) -> int:
    """Return how many slots are lent."""
    return sum([worker.waiting is not None for worker in workers])


def is_awaited(workers: Iterable[Worker], number: int) -> bool:
    """Return whether a job that runs waits for this one."""
    return any(worker.waiting is not None and number in worker.awaited for worker in workers)


def with_inputs(awaited: Sequence[int], inputs: Inputs) -> list[int]:
    """Return these jobs, and what they wait for as inputs, all the way down; not all, if they are many."""
    found = dict.fromkeys(awaited)
    ahead = deque(awaited)
    while ahead and len(found) < MOST_AWAITED:
        for following in sorted(inputs.get(ahead.popleft(), ())):
            if following not in found:
                found[following] = None
                ahead.append(following)
    return list(found)


def refusal(
    workers: Sequence[Worker],
    worker: Worker,
    number: int,
    awaited: Sequence[int],
    known: Known,
    most: int,
) -> JobdError | None:
    """Return why a worker's job may not wait for these others, or None.

    A worker that a dead daemon had started may go on with a wait, whatever ``most`` says now.
    """
    cycle = _cycle(workers, number, awaited, known.inputs)
    if cycle:
        chain = "".join(f", which waits for job {other}" for other in cycle[1:])
        return Deadlock(
            f"job {number} would wait for job {cycle[0]}{chain}: none of them could ever end",
            "let one of them return before the other asks for its result",
        )
    chain = _Knot(workers, number, awaited, known).chain(number)
    if chain:
        return Deadlock(
            f"job {number} would wait for job {chain}: none of them could ever end",
            "give them different keys, or let one return before the other asks for its result",
        )
    count = lent(workers)
    if count >= most and not worker.adopted:
        return TooManyWaiting(
            f"{count} jobs wait for others already, which is as many as may",
            "raise pool.max_lent, or wait for fewer jobs within jobs",
        )
    return None


def _cycle(
    workers: Iterable[Worker], number: int, awaited: Sequence[int], inputs: Inputs
) -> list[int]:
    """Return the way from one of these jobs back to ``number``, along what waits for what; or []."""
    waits = {w.waiting.id: w.awaited for w in workers if w.waiting is not None}
    came_from: dict[int, int] = dict.fromkeys(awaited, 0)
    ahead = list(awaited)
    while ahead:
        at = ahead.pop()
        if at == number:
            way = [at]
            while came_from[way[-1]]:
                way.append(came_from[way[-1]])
            return way[::-1]
        for following in waits.get(at) or sorted(inputs.get(at, ())):
            if following not in came_from:
                came_from[following] = at
                ahead.append(following)
    return []


class _Knot:
    """Whether a job could end that waits for these others, if all gates let out only who has ended."""

    def __init__(
        self,
        workers: Iterable[Worker],
        number: int,
        awaited: Sequence[int],
        known: Known,
    ) -> None:
        self._all: dict[int, Iterable[int]] = {
            w.waiting.id: w.awaited for w in workers if w.waiting is not None
        }
        self._all[number] = awaited
        """Of each job those that have to end before it goes on."""
        self._one: dict[int, dict[str, list[int]]] = {}
        """And by gate those of whom one has to end."""
        self._free: set[int] = set()
        """Jobs that will end, as far as can be seen."""
        ahead = [number]
        seen = {number}
        while ahead:
            at = ahead.pop()
            needed = self._all.setdefault(at, sorted(known.inputs.get(at, ())))
            gates = self._one[at] = {} if at == number else known.held(at)
            following = [*needed, *(other for holders in gates.values() for other in holders)]
            ahead += [other for other in following if other not in seen]
            seen.update(following)
        while fresh := {at for at in seen - self._free if self._can_end(at)}:
            self._free |= fresh

    def _can_end(self, at: int) -> bool:
        free = self._free
        if not all(other in free for other in self._all[at]):
            return False
        return all(any(other in free for other in holders) for holders in self._one[at].values())

    def chain(self, number: int) -> str:
        """Return in words what keeps a job from ever ending, from the job on that it waits for; or ""."""
        if number in self._free:
            return ""
        at = next(other for other in self._all[number] if other not in self._free)
        words, seen = [str(at)], {at}
        while True:
            needed = [other for other in self._all[at] if other not in self._free]
            if needed:
                at = needed[0]
                words.append(f", which waits for job {at}")
            else:
                gate, holders = next(
                    (gate, holders)
                    for gate, holders in self._one[at].items()
                    if self._free.isdisjoint(holders)
                )
                at = number if number in holders else holders[0]
                words.append(f", which cannot start before job {at} ends (it has {words_of(gate)})")
            if at in seen or at == number:
                return "".join(words)
            seen.add(at)
