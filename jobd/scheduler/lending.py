"""Who waits for whom: may a job wait for others, and lend its slot meanwhile?

The waits of jobs for jobs are a graph.  A wait that would close a cycle in it can never end,
so it is refused, by an error that spells the cycle out; so is one beyond the cap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from jobd.model.errors import Deadlock, JobdError, TooManyWaiting
from jobd.scheduler.roster import Worker

MOST_AWAITED = 1_000

Inputs = Mapping[int, Iterable[int]]
"""Of each blocked job, the inputs that it waits for."""


def lent(workers: Iterable[Worker]) -> int:
    """Return how many slots are lent."""
    return sum(worker.waiting is not None for worker in workers)


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
    inputs: Inputs,
    most: int,
) -> JobdError | None:
    """Return why a worker's job may not wait for these others, or None.

    ``inputs`` has what blocked jobs wait for.  A worker that a dead daemon had started may
    go on with a wait, whatever ``most`` says now.
    """
    cycle = _cycle(workers, number, awaited, inputs)
    if cycle:
        chain = "".join(f", which waits for job {other}" for other in cycle[1:])
        return Deadlock(
            f"job {number} would wait for job {cycle[0]}{chain}: none of them could ever end",
            "let one of them return before the other asks for its result",
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
