"""Runs the items of an array one after the other: each is an attempt, with as little around it as can be."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from jobd import payload
from jobd.blobs import Spot
from jobd.model.blob import result_name
from jobd.model.job import Outcome, Verdict
from jobd.model.orders import Task
from jobd.model.stretch import calls_in, is_plain
from jobd.pool import forks
from jobd.pool.alarm import Stopped
from jobd.pool.attempts import FORKS_US, TO_RUN, Attempts
from jobd.pool.delivery import is_small
from jobd.pool.results import encode_result
from jobd.pool.surroundings import set_argv

QuickRun = Callable[[Task], Outcome | bytes]


class ItemAttempts(Attempts):
    """As ``Attempts``, of items too."""

    _shared_code = b""
    """Of the function of the stretch at hand, if it travels by value."""
    _shared: Callable[..., object] | None = None
    _quick_function: Callable[..., object] | None = None
    _quick_args: list[Any]
    _is_json = False
    """The results of the stretch at hand are wanted as JSON."""

    def quick(self, stretch: Task) -> QuickRun | None:
        """Return what runs the items of a stretch if nothing but a call is to be done; None: it is more.

        That is so for plain data and a function that is here.  It does as ``run``, and returns only the
        value of an item if that is all there is to tell.
        """
        by_value, data = payload.split_by_value(stretch.args)
        function = self._functions.get(stretch.function)
        if (
            stretch.limits is not None
            or stretch.surroundings is not None
            or by_value
            or stretch.inputs
        ):
            return None
        if function is None or not is_plain(data):
            return None
        calls = payload.decode_chunk(data)
        self._quick_function, self._is_json = function, data[:1] == b"J"
        first, name, longest_s = stretch.id - stretch.at, stretch.function, FORKS_US / 1e6
        clock, begin, output, hands = time.perf_counter, self._board.begin, self.output, self._hands
        call, result, notes = self._call, self._quick_result, self.notes
        is_as_it_was, is_silent, returned = (
            self._pristine.is_as_it_was,
            output.is_silent,
            Verdict.RETURNED,
        )
        began_s, began_us = clock(), max(1, time.time_ns() // 1000)

        def run(task: Task) -> Outcome | bytes:
            number = task.id
            self._quick_args = calls[number - first]
            hands.began_s = began = clock()
            wall_us = began_us + int((began - began_s) * 1e6)
            begin(number, task.attempt, wall_us, output.number, output.start)
            try:
                ended_as = call(task, result)
                ended = clock()
                took_s = ended - began
                if took_s < longest_s and ended_as[0] == returned and not notes:
                    value = ended_as[1]
                    is_quiet = value is not None and is_small(value)
                    if is_quiet and is_as_it_was(name, began, ended) and is_silent():
                        return value or b""
                (ended_as, duration_us) = self._cleaned(task, ended_as, began, ended)
            except BaseException as late:  # noqa: BLE001  # as in _call_cleanly
                ended_as, duration_us = self._too_late(task, late, began)
            return self._outcome(task, ended_as, wall_us, duration_us)

        return run

    def _quick_result(self, task: Task) -> bytes:
        """As ``_result``, of an item of ``quick_calls``."""
        argv = getattr(sys, "argv", None)
        if type(argv) is not list or argv != [task.function]:
            set_argv(task.function, None)
        if self._hands.is_told_to_stop:
            raise Stopped
        assert self._quick_function is not None
        value = self._quick_function(*self._quick_args)
        if type(value) in TO_RUN:
            value = self._run_on(task, value, as_json=self._is_json)
        if self._forks.is_child:
            forks.end(None)
        self.in_job = False
        if value is None:
            return payload.NONE
        spot = Spot(self._blobs, result_name, task.id, task.attempt, self._hands.boot)
        return encode_result(
            value, self._settings.max_payload_bytes, as_json=self._is_json, spot=spot
        )

    def items_of(self, stretch: Task, *, quick: bool) -> Iterator[Task]:
        """Yield the items of a stretch, each as a task of its own; ``quick`` ones do without their calls."""
        attempt, function, queue = stretch.attempt, stretch.function, stretch.queue
        if quick:
            for number in range(stretch.id, stretch.id + stretch.count):
                yield Task(number, attempt, function, b"", [], queue)
            return
        self._shared_code, data = payload.split_by_value(stretch.args)
        prefix = stretch.args[: len(stretch.args) - len(data)]
        inputs, limits, around = stretch.inputs, stretch.limits, stretch.surroundings
        calls = calls_in(data)[stretch.at : stretch.at + stretch.count]
        for number, call in enumerate(calls, stretch.id):
            args = prefix + call if prefix else call
            yield Task(number, attempt, function, args, inputs, queue, limits, around)

    def end_stretch(self) -> None:
        """Its function is nobody else's."""
        self._shared_code, self._shared = b"", None

    def _by_value(self, code: bytes) -> Callable[..., object]:
        """Return a function that travels by value: the same one to all items of a stretch."""
        if code != self._shared_code:
            return super()._by_value(code)
        if self._shared is None:
            self._shared = super()._by_value(code)
        return self._shared
