"""From the words of a submit to what holds for its jobs; and what is refused for these words."""

from __future__ import annotations

from jobd.config.settings import Settings
from jobd.daemon.allowed import AllowList
from jobd.daemon.environments import Environments
from jobd.model.errors import UsageError
from jobd.model.messages import Submit
from jobd.model.options import Layers, Policy, decode_options
from jobd.model.queues import DEFAULT, unknown_queue
from jobd.model.reference import MAX_CHARACTERS, parse_reference
from jobd.scheduler.queues import Queues

MOST_POLICIES = 10_000


class Policies:
    """What holds for jobs, worked out once for the same words."""

    def __init__(self, settings: Settings, environments: Environments, queues: Queues) -> None:
        self.allowed = AllowList(settings.security.allow)
        self._environments = environments
        self._queues = queues
        self._layers = Layers.of(settings.rules)
        self._max_payload_bytes = settings.limits.max_payload_bytes
        self._known: dict[tuple[str, bytes, bool, bytes], Policy | None] = {}
        """By function, options, and whether the function travels by value: none of them is wrong."""

    def judged(self, request: Submit) -> Policy | None:
        """Refuse what can be seen to be wrong, before anybody is asked; return what holds for the jobs."""
        self.allowed.refuse_foreign(request)
        policy = self.of(request)
        self._refuse_large(request)
        return policy

    def of(self, request: Submit) -> Policy | None:
        """Return what holds for the jobs of a submit; worked out once for the same words.

        Raises:
            UsageError: that is no name of a function; an option is unknown, or its value cannot be used.
        """
        key = (request.function, request.options, request.by_value, request.environment)
        try:
            return self._known[key]
        except KeyError:
            pass  # nobody has used these words before
        if request.by_value:
            _refuse_name(request)
        else:
            parse_reference(request.function)
        environments = self._environments
        if len(self._known) >= MOST_POLICIES or environments.is_full:
            self._known.clear()
            environments.forget()
        said = decode_options(request.options, request.environment)
        self.allowed.refuse_surroundings(request.function, said)
        policy = self._layers.policy(request.function, said, environments.keep)
        environments.count(len(request.options) + len(request.environment))
        self._known[key] = policy
        return policy

    def refuse_unknown_queue(self, policy: Policy | None) -> None:
        """Refuse jobs of a queue that nobody has made.

        Raises:
            UsageError: they are.
        """
        name = DEFAULT if policy is None else policy.queue
        if not self._queues.is_known(name):
            raise unknown_queue(name, self._queues.rules)

    def refuse_size(self, size: int, what: str) -> None:
        """Refuse what is larger than a payload may be.

        Raises:
            UsageError: it is.
        """
        limit = self._max_payload_bytes
        if size > limit:
            raise UsageError(
                f"{what} {size} bytes, over the limit of {limit}",
                "pass a file name, or raise limits.max_payload_bytes",
            )

    def _refuse_large(self, request: Submit) -> None:
        refuse_odd(request.uid)
        if not request.args:
            raise UsageError("a submit of no jobs", "give at least one")
        args = request.args
        size = len(args[0]) if len(args) == 1 else max(map(len, args))
        self.refuse_size(size, "the arguments have")


def refuse_odd(uid: bytes) -> None:
    """Refuse a key that has not the protocol's length."""
    if len(uid) != 16:
        raise UsageError("the key of a submit has 16 bytes", "is the client of another version?")


def name_of(call: Submit) -> str:
    """Return what a person calls a job of a graph."""
    try:
        said = decode_options(call.options)
    except UsageError:
        said = {}
    return f"job {said.get('name') or call.function}"


def _refuse_name(request: Submit) -> None:
    """Refuse a function by value whose name cannot be shown."""
    if not 0 < len(request.function) <= MAX_CHARACTERS or not request.function.isprintable():
        raise UsageError(
            f"the name of a function has 1 to {MAX_CHARACTERS} characters that can be shown",
            "is the client of another version?",
        )
