"""Is this function there, and does it take these arguments?  Asked of the checker, never answered here.

A yes is remembered for its function and shape of arguments until the workers are
reloaded.  A no is only believed from a checker that is fresh: one that has been
running may have imported the user's module before it was mended.

The checker has one check in hand at a time, so that its death, or a time that is
over, is put down to the right one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jobd.model.errors import BY_NAME, BadFunction, JobdError
from jobd.model.messages import Apply, Submit
from jobd.model.orders import Check, Checked, Order, Surroundings

MOST_REMEMBERED = 100_000

Shape = tuple[int, tuple[str, ...]]
Request = Submit | Apply


class Pending(msgspec.Struct):
    """A check that is under way, and the submits that wait for it."""

    number: int
    function: str
    shapes: list[Shape]
    waiting: list[tuple[bytes, Request]]
    around: Surroundings | None = None


class Checks:
    """The checker as the daemon sees it.

    ``spawn`` starts a checker by uid, ``send`` gives it orders, ``kill`` ends it;
    ``accept`` and ``refuse`` are told the verdict for each submit.
    """

    def __init__(  # noqa: PLR0913  # five callbacks: the pool and the requests, which it must not know
        self,
        boot: str,
        timeout_s: float,
        *,
        spawn: Callable[[str], None],
        send: Callable[[str, Order], None],
        kill: Callable[[str], None],
        accept: Callable[[bytes, Request], None],
        refuse: Callable[[bytes, Request, JobdError], None],
    ) -> None:
        self._boot = boot
        self._timeout_s = timeout_s
        self._spawn, self._send, self._kill = spawn, send, kill
        self._accept, self._refuse = accept, refuse
        self._known: set[tuple[str, Shape]] = set()
        self._pending: dict[int, Pending] = {}
        self._uid = ""
        self._ready = False
        self._answered = 0
        self._spawned = 0
        self._number = 0
        self._lost = 0
        """Checkers in a row that have ended before they were ready."""
        self._deadline_s = 0.0
        """When the time of the first pending check is over; 0: it has not begun."""

    def passes(self, request: Submit) -> bool:
        """Whether every shape of this submit is known to be right."""
        function, known = request.function, self._known
        for shape in request.shapes:
            if (function, shape) not in known:
                return False
        return True

    def is_waiting(self, peer: bytes, request: Request) -> bool:
        """Whether a submit with this key waits already; the newest sender gets the answer."""
        for pending in self._pending.values():
            for index, (_, other) in enumerate(pending.waiting):
                if other.uid == request.uid:
                    pending.waiting[index] = (peer, request)
                    return True
        return False

    def is_pending(self, uid: bytes) -> bool:
        """Whether a submit with this key waits."""
        return any(
            request.uid == uid for check in self._pending.values() for _, request in check.waiting
        )

    def ask(
        self,
        peer: bytes,
        request: Request,
        about: Submit | None = None,
        around: Surroundings | None = None,
    ) -> None:
        """Have a submit checked, or one of a graph; it is accepted or refused later.

        ``around`` is what the job is given: a module may need that to be imported.
        """
        call = about or request
        assert isinstance(call, Submit)
        shapes = [s for s in call.shapes if (call.function, s) not in self._known]
        for pending in self._pending.values():
            alike = (pending.function, pending.around) == (call.function, around)
            if alike and set(shapes) <= set(pending.shapes):
                pending.waiting.append((peer, request))
                return
        self._number += 1
        pending = Pending(self._number, call.function, shapes, [(peer, request)], around)
        self._pending[self._number] = pending
        if len(self._pending) == 1:
            self._go_on()

    def ready(self, uid: str) -> None:
        """The checker has connected."""
        if uid == self._uid:
            self._ready = True
            self._lost = 0
            self._go_on()

    def checked(self, uid: str, word: Checked) -> None:
        """The checker has come to a verdict."""
        pending = self._pending.get(word.number)
        if uid != self._uid or pending is None:
            return
        if word.message:
            self._refused(pending, word)
            self._go_on()
        else:
            self._passed(pending)

    def died(self, uid: str, how: str) -> None:
        """The checker has ended: over the import it was at, or because it was told to."""
        if uid != self._uid:
            return
        self._uid = ""
        first = self._first()
        if first is not None and self._ready:
            module = first.function.partition(":")[0]
            sentence = f"importing {module} ended the process that did it ({how})"
            self._give_up(first, BadFunction(sentence, "--no-check submits it all the same"))
        elif first is not None and self._lost:
            sentence = f"{first.function} cannot be checked: {how}"
            self._give_up(first, BadFunction(sentence, "see 'jobd status'"))
        elif first is not None:
            self._lost += 1
        self._go_on()

    def reload(self) -> None:
        """Forget every verdict, and use a new checker."""
        self._known.clear()
        self._replace()
        self._go_on()

    def deadline_s(self) -> float | None:
        """Return when ``expire`` should be called, or None."""
        return self._deadline_s if self._pending else None

    def expire(self, now_s: float) -> None:
        """Give up a check that takes too long, and end the checker that is at it."""
        first = self._first()
        if first is None:
            return
        if not self._deadline_s:
            self._deadline_s = now_s + self._timeout_s
        elif now_s >= self._deadline_s:
            what = first.function
            if self._ready:
                self._replace()
                sentence = f"checking {what} took over {self._timeout_s:g} s"
            else:
                sentence = f"{what} cannot be checked: no checker within {self._timeout_s:g} s"
            self._give_up(first, BadFunction(sentence, "--no-check submits it without"))
            self._go_on()

    def _first(self) -> Pending | None:
        """Return the check that the checker has in hand, or will have."""
        return next(iter(self._pending.values()), None)

    def _go_on(self) -> None:
        """Give the checker the next check; start one if there is none."""
        self._deadline_s = 0.0
        first = self._first()
        if first is None:
            return
        if not self._uid:
            self._spawned += 1
            self._uid = f"{self._boot}-check-{self._spawned}"
            self._ready = False
            self._answered = 0
            self._spawn(self._uid)
        elif self._ready:
            self._send(self._uid, Check(first.number, first.function, first.shapes, first.around))

    def _replace(self) -> None:
        """End the checker; the next check has a new one."""
        if self._uid:
            self._kill(self._uid)
        self._uid = ""

    def _passed(self, pending: Pending) -> None:
        self._answered += 1
        del self._pending[pending.number]
        if len(self._known) > MOST_REMEMBERED:
            self._known.clear()
        self._known.update((pending.function, shape) for shape in pending.shapes)
        self._go_on()  # before those who waited ask for more
        for peer, request in pending.waiting:
            self._accept(peer, request)

    def _refused(self, pending: Pending, word: Checked) -> None:
        """Believe a fresh checker; let a new one repeat what an older one says."""
        if not self._answered:
            kind = BY_NAME.get(word.error, BadFunction)
            self._give_up(pending, kind(word.message, word.hint))
        self._replace()

    def _give_up(self, pending: Pending, error: JobdError) -> None:
        del self._pending[pending.number]
        for peer, request in pending.waiting:
            self._refuse(peer, request, error)
