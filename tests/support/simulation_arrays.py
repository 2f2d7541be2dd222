"""What must be so of arrays, whatever happens in a simulation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from fake_pool import CODE, result_of
from fake_store import Commit, FakeStore
from simulation_inputs import Broken

from jobd.model.item import FIRST_ITEM, array_of, item_of
from jobd.model.job import ArraySpec, Errors, Job, Verdict
from jobd.model.messages import Gather, Pieces
from jobd.model.orders import Task
from jobd.model.states import ENDED, Event, State
from jobd.model.stretch import calls_in, mixed, unpack
from jobd.scheduler import Array, Scheduler
from jobd.scheduler.batch import Range

NEVER_BEGAN = (State.EXPIRED, State.ABORTED, State.CANCELLED)
"""How an array ends whose items could not start: these have no ends, but those that were cancelled."""


def choose_array(
    dice: Callable[[], float], name: bytes
) -> tuple[ArraySpec, list[tuple[int, bytes]]]:
    """Return what an array is, and its calls, in chunks."""
    items = int(dice() * 13)
    spec = ArraySpec(
        items,
        (None, None, None, 0, 1, 3)[int(dice() * 6)],
        tuple(Errors)[int(dice() * 3)],
        (0, 0, 0, 0, 1, 2)[int(dice() * 6)],
    )
    chunks, at = [], 0
    while at < items:
        count = min(items - at, int(dice() * 4) + 1)
        numbers = range(at, at + count)
        if dice() < 0.5:
            chunk = b"j" + msgspec.json.encode([[f"{name.decode()}/{n}"] for n in numbers])
        else:
            chunk = mixed([b"%s/%d" % (name, n) for n in numbers])
        chunks.append((count, chunk))
        at += count
    return spec, chunks


def gathered(asked: Gather, answer: Pieces) -> None:
    """Judge an answer by its question."""
    if asked.wait and not (answer.pieces or answer.over):
        raise Broken(f"{answer} is no answer to {asked}")
    low, high = asked.wanted[0]
    at = low
    for piece in answer.pieces:
        if piece.first + piece.count <= low or piece.first > high:
            raise Broken(f"{piece} is told, and {asked} was asked")
        if asked.ordered and piece.first > at:
            raise Broken(f"{piece} is told before {at}, and {asked} was asked")
        at = piece.first + piece.count


def args_in(job: Job) -> list[bytes]:
    """Return the arguments of a job, or of the items of a stretch."""
    if job.stretch is None or job.stretch.count == 1:
        return [job.args]
    code, mark, _ = job.args.partition(CODE)
    stretch = job.stretch
    calls = calls_in(stretch.chunk)[stretch.at : stretch.at + stretch.count]
    return [code + mark + call for call in calls]


class ArrayTruth:
    """What has become of items, and of their arrays."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self.kinds: Counter[str] = Counter()
        """How often what has happened."""

    def committed(self, commit: Commit, ends: dict[bytes, dict[int, Any]]) -> None:
        """Judge a commit; ``ends`` are the ends of attempts in workers, by their arguments."""
        if not (commit.ranges or commit.unranged or commit.rows):
            return
        touched = {array_of(r.first): True for r in [*commit.unranged, *commit.ranges]}
        for range_ in commit.unranged:
            if range_.state is State.SUCCEEDED:
                raise Broken(f"2: {range_} counts no longer")
            self.kinds["reopened"] += range_.count
        for range_ in commit.ranges:
            self._judge_range(range_, ends)
        for _, row in commit.rows:
            if row.id >= FIRST_ITEM:
                touched[array_of(row.id)] = True
            elif row.array is not None:
                touched.setdefault(row.id, False)
        for number, by_items in touched.items():
            self._judge(self._store.rows[number], by_items=by_items)

    def _judge_range(self, range_: Range, ends: dict[bytes, dict[int, Any]]) -> None:
        """Items that returned have done so; others of a range have never run."""
        own = self._store.rows[array_of(range_.first)]
        self.kinds[f"range {range_.state.name}"] += range_.count
        values = unpack(range_.values) if range_.values else []
        if len(values) != range_.count * (range_.state is State.SUCCEEDED):
            raise Broken(f"3: {range_} has not as many values")
        for place in range(range_.count):
            number = range_.first + place
            item = self._store.arrays.find(number)
            assert item is not None
            if number in self._store.rows:
                raise Broken(f"2: item {number} has a row, and {range_}")
            if range_.state is State.SUCCEEDED:
                end = ends.get(item.args, {}).get(1)
                if end is None or end.verdict != Verdict.RETURNED:
                    raise Broken(f"3: {range_} of {own.id}, but item {number} ended as {end}")
                if values[place] != result_of(Task(number, 1, "", item.args)):
                    raise Broken(f"3: item {number} has the value {values[place]!r}")

    def _judge(self, own: Job, *, by_items: bool) -> None:
        """An array ends with its last item, in the state that follows from theirs; but if it is held then."""
        assert own.array is not None
        arrays, items = self._store.arrays, own.array.items
        first, behind = item_of(own.id, 0), item_of(own.id, own.array.items)
        counts, left = arrays.counts(first, behind), arrays.are_open(own.id)
        if sum(counts.values()) + len(left) != items:
            raise Broken(f"2: array {own.id} has {items} items, {counts} and {left}")
        if own.state < ENDED:
            has_run = by_items and counts.keys() & {State.SUCCEEDED, State.FAILED, State.CRASHED}
            if not left and (own.state is State.QUEUED or (own.state is State.HELD and has_run)):
                raise Broken(f"array {own.id} is {own.state.name}, and nothing of it is left")
            return
        self.kinds[f"array {own.state.name}"] += 1
        if own.state in NEVER_BEGAN and counts.keys() <= {State.CANCELLED}:
            return
        if left:
            raise Broken(f"array {own.id} is {own.state.name}, and {left} have not ended")
        is_well = own.array.errors is not Errors.FAIL or counts.get(State.SUCCEEDED, 0) == items
        fits = State.SUCCEEDED if is_well else State.FAILED
        if own.stop is Event.CANCEL or own.state is State.CANCELLED:
            fits = State.CANCELLED
        if own.state is not fits:
            raise Broken(f"array {own.id} is {own.state.name}, its items are {counts}")

    def gathered(self, array: int, answer: Pieces, reopened: set[int]) -> None:
        """Judge what is told of an array's items; nobody knows what those were that were ``reopened``."""
        self.kinds["gathered"] += len(answer.pieces)
        own = self._store.rows[array]
        is_same = array in reopened or own.state is answer.state or answer.state < ENDED
        if own.array is None or own.array.items != answer.items or not is_same:
            raise Broken(f"{answer} is told of {own}")
        if answer.over and own.state < ENDED and array not in reopened:
            raise Broken(f"{answer} is told, and array {array} is {own.state.name}")
        for piece in answer.pieces:
            values = unpack(piece.values) if piece.values else []
            if len(values) != piece.count * (piece.state is State.SUCCEEDED):
                raise Broken(f"4: {piece} is told of {array}")
            for place in range(piece.count):
                number = item_of(array, piece.first + place)
                item = FakeStore.job(self._store, number)
                value = values[place] if values else None
                is_so = item is not None and (item.state, item.value) == (piece.state, value)
                if not (is_so or number in reopened):
                    raise Broken(f"4: {piece} is told of {array}, and {number} is {item}")


def check_arrays(scheduler: Scheduler, store: FakeStore) -> None:
    """After each turn: every item that has not ended is in one place only, and none is forgotten."""
    live = scheduler.arrays.live
    in_line = _in_line(scheduler) if live else set()
    for number, array in live.items():
        places, hands = _places(scheduler, store, array)
        if any(count > 1 for count in places.values()):
            raise Broken(f"items of {number} are in several places: {places}")
        if array.open != len(places):
            raise Broken(f"{array.open} items of {number} are open, {sorted(places)} are somewhere")
        if array.hands != hands or array.job.array is not array.spec:
            raise Broken(f"{hands} of {number} are in hands, {array.hands} are counted: {array}")
        is_due = array.job.state is State.QUEUED and array.has_ready
        if is_due and not (array.is_in_line and number in in_line):
            raise Broken(f"6: array {number} is not in line: {array.is_in_line}, {in_line}")
    for number, job in scheduler.window.jobs.items():
        if number >= FIRST_ITEM and array_of(number) not in live and job.state < ENDED:
            raise Broken(f"9: item {number} is in memory, and its array is not")


def _places(scheduler: Scheduler, store: FakeStore, array: Array) -> tuple[Counter[int], int]:
    """Return in how many places each item is that has not ended, and how much of it is in hands."""
    jobs, number = scheduler.window.jobs, array.job.id
    places = Counter(n for low, behind in array.ahead for n in range(low, behind))
    places.update(n for part in array.loaded for n in range(part.first, part.behind))
    hands = [job for job in _hands(scheduler).values() if array_of(job.id) == number]
    for job in hands:
        if job.doomed and job.id in jobs:
            raise Broken(f"item {job.id} runs, and is to be cancelled: {job.doomed}")
        count = job.stretch.count if job.stretch is not None else 1
        places.update(range(job.id, job.id + count))
    waiting = [n for n, job in jobs.items() if job.state < State.RUNNING]
    waiting += [n for n in store.live if n not in jobs]  # those that wait for the clock
    places.update(n for n in waiting if array_of(n) == number)
    return places, len(hands)


def _in_line(scheduler: Scheduler) -> set[int]:
    window = scheduler.window
    found = {*window._back, *window._first, *(job.id for job in window._fresh)}
    for line in scheduler.lanes._known.lines.values():
        found.update(line.ids)
    return found


class ArraySlots:
    """Judges from turn to turn of one daemon how much of each array it has handed out."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._had = _hands(scheduler)

    def check(self, scheduler: Scheduler) -> None:
        """Nothing more is handed out of an array that has no slot free."""
        before, self._had = self._had, _hands(scheduler)
        taken = Counter(array_of(job.id) for job in self._had.values())
        for key, job in self._had.items():
            array = scheduler.arrays.live.get(array_of(job.id))
            if (
                key not in before
                and array is not None
                and 0 < array.spec.slots < taken[array_of(job.id)]
            ):
                raise Broken(f"item {job.id} was handed out, {taken} for {array.spec} are")


def _hands(scheduler: Scheduler) -> dict[int, Job]:
    hands = (job for worker in scheduler.workers.values() for job in worker.assigned.values())
    return {id(job): job for job in hands if job.id >= FIRST_ITEM}
