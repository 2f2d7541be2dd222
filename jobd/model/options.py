"""How a job is to run: every option, once, with the same words everywhere.

``OPTIONS`` is the table.  The command line makes flags of it (``--max-backoff 1h``),
Python keyword arguments (``client.options(max_backoff=3600)``), the settings keys
(``[defaults]``, ``[queues.NAME]``, ``[functions."mod:func"]``).  All three hand what was
said to ``parse_options``, so a value means the same in each of them and is refused with
the same sentence.  What is said travels as a plain dictionary (``Said``); the daemon lays
it over the settings (``Layers.policy``), and what comes out, the ``Policy``, is stored with
the job: settings that change later do not change it.

Units: durations in seconds, sizes in bytes, instants in microseconds since 1970 in UTC.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any

import msgspec

from jobd.model.durations import LONGEST_S, parse_duration, parse_size
from jobd.model.edges import OPTIONS as AFTER
from jobd.model.edges import When
from jobd.model.environment import (
    MOST_BYTES,
    check_patterns,
    decoded,
    encoded,
    is_text,
    parse_environment,
    refuse_large,
)
from jobd.model.errors import UsageError
from jobd.model.instants import read_instant
from jobd.model.queues import DEFAULT, Override, parse_rate
from jobd.model.selector import MAX_ID

Name = int | bytes
"""A job: its id, or the key of its submit and 8 bytes that tell which of its jobs."""

Travelling = bool | int | float | str | list[str] | dict[str, str]
Value = Travelling | list[Name]
Said = dict[str, Value]
"""Options by name, checked, in plain values; what was not said is not in it."""

MOST = 1_000_000
LONGEST_NAME = 200
LONGEST_PATH = 4096

HIGHEST = 1000
"""The highest priority; the lowest is as much under 0."""

UNIQUE = ("live", "waiting", "running")
"""What ``unique`` may have: no other job that has not ended, or has not started; no two that run."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What holds for a job.  New fields need a default: policies are stored."""

    queue: str = DEFAULT
    name: str = ""
    bound: int = 100
    """Items that a stream may be ahead of its consumers."""

    priority: int = 0
    concurrency_key: str = ""
    concurrency: int = 1
    """At most so many jobs with that key run at the same time."""
    fair_key: str = ""
    """Jobs of one queue and priority take turns between these."""

    retries: int = 0
    backoff: str = "exponential:1"
    """As ``parse_backoff`` reads it."""
    jitter: float = 0.1
    max_backoff: float = 3600.0
    retry_on: list[str] = []
    """Names of exceptions; empty: all."""
    no_retry_on: list[str] = []
    max_crashes: int | None = None
    """None: as the setting ``jobs.max_crashes`` says."""

    timeout: float = 0.0
    """0: none."""
    soft_timeout: float = 0.0
    kill_grace: float | None = None
    """None: as the setting ``pool.kill_grace_s`` says."""
    at: int = 0
    """Not before this instant; 0: at once."""
    delay: float = msgspec.field(default=0.0, name="in")
    """Not before so long after its submit."""
    expires: float = 0.0
    """How long after its submit it is of no use any more if it has not started; 0: never."""

    hold: bool = False
    """It was held from the start."""

    key: str = ""
    """What it is unique by; empty: nothing."""
    unique: list[str] = []
    """In which states another job with this key is in its way, of live, waiting, running; empty: live."""
    if_exists: str = "return"

    mem: int = 0
    cpus: float = 0.0
    nproc: int = 0
    nice: int = 0

    env: bytes = b""
    """Its variables, as ``jobd.model.environment`` encodes them; where jobs are stored, their digest."""
    inherit_env: list[str] = []
    """The patterns by which variables of its caller are among these; empty: none is."""
    cwd: str = ""
    argv: list[str] = []
    """What follows the function's name in ``sys.argv``."""

    origins: dict[str, str] = {}
    """Where each value that is not the built-in one came from."""


BUILT_IN = Policy()
"""What holds where nothing was said; None in messages and in the store."""


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before a retry; seconds."""

    kind: str  # fixed, linear, exponential, list
    delays_s: tuple[float, ...]

    def delay_s(self, retry: int) -> float:
        """Return the delay before retry number ``retry`` (the first is 1)."""
        first = self.delays_s[0]
        match self.kind:
            case "fixed":
                return first
            case "linear":
                return first * retry
            case "exponential":
                return min(LONGEST_S, first * 2.0 ** min(retry - 1, 64))
        return self.delays_s[min(retry, len(self.delays_s)) - 1]


@lru_cache(maxsize=1000)
def parse_backoff(text: str) -> Backoff:
    """Read ``fixed:10s``, ``linear:10s``, ``exponential:1s``, a list ``1s,10s,1m``, or ``10s`` (fixed).

    Raises:
        UsageError: it is none of these.
    """
    kind, colon, rest = text.strip().rpartition(":")
    kinds = ("fixed", "linear", "exponential")
    try:
        delays = tuple(parse_duration(part) for part in rest.split(","))
    except UsageError:
        delays = ()
    if not delays or (colon and (kind not in kinds or len(delays) > 1)):
        raise UsageError(
            f"{text!r} is not a backoff",
            "write fixed:10s, linear:10s, exponential:1s, or a list such as 1s,10s,1m",
        )
    return Backoff(kind or ("fixed" if len(delays) == 1 else "list"), delays)


def retry_delay_s(policy: Policy, job: int, retry: int) -> float:
    """Return the seconds before retry number ``retry`` of a job, jitter included.

    The jitter is drawn from the numbers alone, so that the scheduler stays deterministic.
    """
    delay = min(policy.max_backoff, parse_backoff(policy.backoff).delay_s(retry))
    from zlib import crc32  # noqa: PLC0415  # the command line needs none

    share = crc32(b"%d/%d" % (job, retry)) / 2**32
    return delay * (1.0 + policy.jitter * (2.0 * share - 1.0))


# -- the table --


class Option(msgspec.Struct, frozen=True):
    """One option.

    Attributes:
        parse: makes a plain value of what was said; raises UsageError.
        metavar: what stands for a value in the help; empty: it is a flag.
        help: one line.
        group: the heading in the help.
    """

    parse: Callable[[Any], Value]
    metavar: str
    help: str
    group: str


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(said: Any) -> int:
        text = str(said).strip()
        if isinstance(said, bool) or not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            raise UsageError(f"{said!r} is not a whole number", f"give one from {low} to {high}")
        if not low <= int(text) <= high:
            raise UsageError(f"{text} is out of range", f"give a number from {low} to {high}")
        return int(text)

    return parse


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(said: Any) -> str:
        if said not in words:
            raise UsageError(f"{said!r} is none of {', '.join(words)}", "give one of these")
        return str(said)

    return parse


def _states(said: Any) -> list[str]:
    parts = said.split(",") if isinstance(said, str) else said
    words = [part.strip() if isinstance(part, str) else part for part in parts or ()]
    if not words or not all(word in UNIQUE for word in words):
        raise UsageError(
            f"{said!r} are no states to be unique in", "give live, waiting, running, or two of them"
        )
    return [word for word in UNIQUE if word in words]


def _flag(said: Any) -> bool:
    if not isinstance(said, bool):
        raise UsageError(f"{said!r} is neither true nor false", "give True or False")
    return said


def _number(low: float, high: float) -> Callable[[Any], float]:
    def parse(said: Any) -> float:
        try:
            value = math.nan if isinstance(said, bool) else float(said)
        except (TypeError, ValueError):
            value = math.nan
        if not low <= value <= high:
            raise UsageError(f"{said!r} is no number here", f"give one from {low:g} to {high:g}")
        return value

    return parse


def _duration(said: Any) -> float:
    if isinstance(said, timedelta):
        said = said.total_seconds()
    if isinstance(said, int | float) and not isinstance(said, bool):
        if not 0 <= said <= LONGEST_S:
            raise UsageError(f"{said!r} is not a duration", "give seconds, 0 or more")
        return float(said)
    if not isinstance(said, str):
        raise UsageError(f"{said!r} is not a duration", "give seconds, or a text such as 1h30m")
    return parse_duration(said)


def _size(said: Any) -> int:
    if isinstance(said, int) and not isinstance(said, bool):
        return _whole(0, 2**60)(said)
    if not isinstance(said, str):
        raise UsageError(f"{said!r} is not a size", "write 512M, 2G or a number of bytes")
    return parse_size(said)


def _name(said: Any) -> str:
    if not isinstance(said, str) or not 0 < len(said) <= LONGEST_NAME or not said.isprintable():
        raise UsageError(
            f"{said!r} is no name here", f"give 1 to {LONGEST_NAME} printable characters"
        )
    return said


def _names(said: Any) -> list[str]:
    parts: Iterable[Any] = said.split(",") if isinstance(said, str) else said
    try:
        words = [part.__qualname__ if isinstance(part, type) else part for part in parts]
    except TypeError:
        words = []
    found = [word.strip() for word in words if isinstance(word, str) and word.strip()]
    bad = [w for w in found if not all(part.isidentifier() for part in w.split("."))]
    if not found or bad or len(found) != len(words):
        raise UsageError(
            f"{said!r} are no names of exceptions", "write ValueError,socket.timeout for example"
        )
    return found


def _backoff(said: Any) -> str:
    if isinstance(said, list | tuple):
        said = ",".join(f"{_duration(part):g}" for part in said)
    text = said if isinstance(said, str) else f"{_duration(said):g}"
    parse_backoff(text)
    return text


def _instant(said: Any) -> int:
    return read_instant(said).at_us


def _jobs(said: Any) -> list[Name]:
    """Read ids, comma between, or a sequence of ids and names of jobs."""
    if isinstance(said, bytes):
        return [said]
    if isinstance(said, str | int):
        return [_job(part.strip()) for part in str(said).split(",")]
    try:
        found = [name for part in said for name in _jobs(part)]
    except TypeError:
        found = []
    if not found:
        raise UsageError(f"{said!r} names no jobs", "give ids, comma between: 7,8")
    return found


def _job(text: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text, re.ASCII) or not 0 < int(text) <= MAX_ID:
        raise UsageError(f"{text!r} is no id of a job", "give a number, such as 42")
    return int(text)


def _rate(said: Any) -> str:
    text = str(said).strip()
    if isinstance(said, bool) or text in ("", "0", "none"):
        return ""
    parse_rate(text)
    return text


def _inherit(said: Any) -> bool | list[str]:
    """Read whether the caller's variables are inherited; as it travels it has the patterns."""
    if isinstance(said, list | tuple):
        return check_patterns(said)
    return _flag(said)


def _texts(said: Any) -> list[str]:
    """Read words that are taken as they are."""
    try:
        words = [said] if isinstance(said, str | os.PathLike) else [*said]
    except TypeError:
        words = [said]
    found = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in words]
    if not all(isinstance(word, str) and is_text(word) for word in found):
        raise UsageError("these are no texts in UTF-8", 'give a list: ["a", "--verbose"]')
    if sum(map(len, found)) > MOST_BYTES:
        raise UsageError(f"the words have more than {MOST_BYTES} characters", "pass a file's name")
    return found


def _directory(said: Any) -> str:
    """Read the name of a directory; whether it is there is seen when the job starts."""
    path = os.fspath(said) if isinstance(said, os.PathLike) else said
    if not isinstance(path, str) or not 0 < len(path) < LONGEST_PATH or not is_text(path):
        raise UsageError(
            f"{said!r:.80} is no name of a directory", "give a path, such as /srv/data"
        )
    return os.path.abspath(path)


_UNIQUE = "Only once"
_AGAIN = "When it fails"
_ORDER = "After other jobs"
_TIME = "Time"
_TURN = "Order"
_LIMITS = "Limits"
_WORLD = "What it is given"
_JOB = "The job"

OPTIONS: dict[str, Option] = {
    "queue": Option(_name, "NAME", "The queue that it waits in: 'jobd queue --help'.", _JOB),
    "name": Option(_name, "TEXT", "A name for people, beside the function's.", _JOB),
    "bound": Option(
        _whole(1, MOST), "N", "Items that a stream may be ahead of its consumers.", _JOB
    ),
    "hold": Option(_flag, "", "Hold it until somebody releases it.", _JOB),
    "key": Option(
        _name, "TEXT", "Queue it only if no other job with this key is in its way.", _UNIQUE
    ),
    "unique": Option(
        _states,
        "STATES",
        "Which are: live ones (not ended), waiting ones; running: one at a time.",
        _UNIQUE,
    ),
    "if_exists": Option(
        _one_of("return", "fail", "replace"),
        "WHAT",
        "Then return the id of that job, fail, or replace it if it waits.",
        _UNIQUE,
    ),
    "retries": Option(_whole(0, MOST), "N", "Run it again up to N times when it fails.", _AGAIN),
    "backoff": Option(
        _backoff,
        "SPEC",
        "Wait before a retry: fixed:10s, linear:10s, exponential:1s, or 1s,10s,1m.",
        _AGAIN,
    ),
    "jitter": Option(_number(0, 1), "SHARE", "Vary the wait by that share, 0 to 1.", _AGAIN),
    "max_backoff": Option(_duration, "DURATION", "Wait no longer than that.", _AGAIN),
    "retry_on": Option(
        _names, "NAMES", "Only after these exceptions, by name, comma between.", _AGAIN
    ),
    "no_retry_on": Option(_names, "NAMES", "Never after these.", _AGAIN),
    "max_crashes": Option(
        _whole(0, 1000),
        "N",
        "Run it again up to N times when its worker died; apart from retries.",
        _AGAIN,
    ),
    "timeout": Option(_duration, "DURATION", "End it after that time: TERM, then KILL.", _TIME),
    "soft_timeout": Option(
        _duration, "DURATION", "Raise jobd.TimeLimitExceeded in it after that.", _TIME
    ),
    "kill_grace": Option(_duration, "DURATION", "The time between TERM and KILL.", _TIME),
    "in": Option(_duration, "DURATION", "Start it no sooner than in that time.", _TIME),
    "at": Option(_instant, "INSTANT", "Start it no sooner than then: 2026-12-24T18:00.", _TIME),
    "expires": Option(_duration, "DURATION", "Do not start it any more after that time.", _TIME),
    "priority": Option(
        _whole(-HIGHEST, HIGHEST), "N", "The higher, the sooner: -1000 to 1000, 0 is usual.", _TURN
    ),
    "concurrency_key": Option(
        _name, "KEY", "Run at most --concurrency jobs with that key at once.", _TURN
    ),
    "concurrency": Option(
        _whole(1, MOST), "N", "How many of its concurrency key; 1 if not said.", _TURN
    ),
    "fair_key": Option(
        _name, "KEY", "Take turns with the jobs of other such keys: a tenant, say.", _TURN
    ),
    "after": Option(_jobs, "IDS", "Start it once these have succeeded: 7,8 or last.", _ORDER),
    "after_any": Option(_jobs, "IDS", "Start it once these have ended, however.", _ORDER),
    "after_fail": Option(
        _jobs, "IDS", "Start it if these end otherwise than by success, and only then.", _ORDER
    ),
    "mem": Option(
        _size,
        "SIZE",
        "Memory that it may use: 2G; each of its processes, without a cgroup.",
        _LIMITS,
    ),
    "cpus": Option(
        _number(0.01, 4096),
        "N",
        "Cores that it may use: 0.5; without a cgroup, whole ones.",
        _LIMITS,
    ),
    "nproc": Option(
        _whole(1, MOST),
        "N",
        "Processes and threads that it may have; without a cgroup, beside the user's others.",
        _LIMITS,
    ),
    "nice": Option(_whole(0, 19), "N", "Niceness, 0 to 19.", _LIMITS),
    "argv": Option(
        _texts,
        "WORD...",
        "What it has in sys.argv: all that follows, to the end of the line.",
        _WORLD,
    ),
    "env": Option(
        parse_environment, "NAME=VALUE", "Set a variable for it; again for more.", _WORLD
    ),
    "env_file": Option(
        _texts, "FILE", "Set the variables in a file of NAME=VALUE lines; --env wins.", _WORLD
    ),
    "inherit_env": Option(
        _inherit, "", "Set yours, as environment.inherit in the settings lets them through.", _WORLD
    ),
    "cwd": Option(_directory, "DIR", "Run it in that directory.", _WORLD),
}
"""All options, in the order of the help."""

OF_QUEUE: dict[str, Option] = {
    "slots": Option(
        _whole(0, MOST), "N", "No more than N of its jobs run at once; 0: no limit.", "The queue"
    ),
    "rate": Option(
        _rate,
        "N/TIME",
        "No more than N of its jobs start in any such time: 10/s, 100/m, 3/10s; 0: no limit.",
        "The queue",
    ),
}
"""What concerns a queue, and not each of its jobs: in ``[queues.NAME]``, and with ``jobd queue set``."""

MAPPINGS = ("env",)
"""Options of which each layer adds to those under it, and replaces no more than what it names."""

OF_CALLER = frozenset({"env_file", "inherit_env"})
"""What only the caller's process can look up (``jobd.client.caller``)."""

ONCE = frozenset({"in", "at", "name", "hold", "key", "argv", *OF_CALLER, *AFTER})
"""Options of one submit, which make no sense as a default."""


def check_default(name: str, value: object, *, of_queue: bool = False) -> Value:
    """Return an option as the settings may have it.

    Raises:
        UsageError: it is none, or cannot be a default.
    """
    if of_queue and name in OF_QUEUE:
        return OF_QUEUE[name].parse(value)
    if name in ONCE or (of_queue and name == "queue"):
        raise UsageError(f"{name!r} cannot be a default", "give it with the submit")
    return parse_options({name: value})[name]


def parse_options(given: Mapping[str, object]) -> Said:
    """Check options by name, as a person or a settings file has given them; None is "not given".

    Python's spelling ``in_`` counts as ``in``.

    Raises:
        UsageError: a name is unknown, or a value cannot be used.
    """
    said: Said = {}
    for spelled, value in given.items():
        name = spelled.rstrip("_")
        if value is None:
            continue
        option = OPTIONS.get(name)
        if option is None:
            raise UsageError(f"there is no option {spelled!r}", _nearest(name))
        try:
            said[name] = option.parse(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error.message}", error.hint) from None
    if "in" in said and "at" in said:
        raise UsageError("'in' and 'at' exclude each other", "give one of them")
    return said


def laid_over(under: Mapping[str, Value], over: Mapping[str, Value]) -> Said:
    """Return options of which ``over`` wins; of variables, one by one."""
    found = {**under, **over}
    for name in MAPPINGS:
        if name in under and name in over:
            found[name] = {**under[name], **over[name]}  # type: ignore[dict-item]  # as it is parsed
    return found


def check_queue_name(name: object) -> str:
    """Return the name of a queue.

    Raises:
        UsageError: it cannot be one.
    """
    return _name(name)


def parse_queue(given: Mapping[str, object]) -> Override:
    """Check what a person says of a queue; None is "not given".

    Raises:
        UsageError: a name is unknown, or a value cannot be used.
    """
    said: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        try:
            said[name] = OF_QUEUE[name].parse(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error.message}", error.hint) from None
    return Override(**said)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Travelling]).decode
_at = _whole(0, 2**53)


def encode_options(said: Said) -> bytes:
    """Return what was said as it travels; nothing said is nothing sent, and edges travel apart."""
    if not AFTER.keys().isdisjoint(said):
        said = {name: value for name, value in said.items() if name not in AFTER}
    return _encode(said) if said else b""


def edges_of(said: Said) -> list[tuple[Name, When]]:
    """Return the jobs that a submit is to come after, and when."""
    return [(name, when) for word, when in AFTER.items() for name in said.get(word, ())]  # type: ignore[misc, union-attr]  # as `_jobs` makes them


def decode_options(data: bytes, environment: bytes = b"") -> Said:
    """Return what a client says; clients are not trusted to have checked it.

    ``environment`` has the variables that are inherited, if the options have not got them.

    Raises:
        UsageError: it is not what ``parse_options`` makes.
    """
    try:
        given = _decode(data) if data else {}
        variables = decoded(environment) if given.get("inherit_env") else {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        problem = f"the options of a submit cannot be read: {error}"
        raise UsageError(problem, "is the client of another version?") from error
    at = given.pop("at", None)
    if not AFTER.keys().isdisjoint(given):
        raise UsageError("edges are no options of a policy", "is the client of another version?")
    if "env_file" in given or not isinstance(given.get("inherit_env", []), list):
        problem = "the caller's variables are to come with the submit"
        raise UsageError(problem, "is the client of another version?")
    said = parse_options(given)
    if "key" not in said:
        for name in ("unique", "if_exists"):
            if name in said:
                raise UsageError(f"{name}: it is about jobs with one key", "give a key, too")
    if at is not None:
        said["at"] = _at(at)
    return laid_over({"env": parse_environment(variables)}, said) if variables else said


def _nearest(name: str) -> str:
    import difflib  # noqa: PLC0415  # takes 3 ms, and only an error needs it

    found = difflib.get_close_matches(name, OPTIONS, n=1)
    return f"did you mean {found[0]!r}?" if found else f"options are {', '.join(OPTIONS)}"


# -- where defaults come from --


class Layers(msgspec.Struct, frozen=True):
    """The defaults that the settings have: for all jobs, by queue, by function."""

    defaults: Said = {}
    queues: dict[str, Said] = {}
    functions: dict[str, Said] = {}

    @classmethod
    def of(cls, rules: Mapping[str, Said]) -> "Layers":
        """Make layers of the settings' rules, by table: ``defaults``, ``queues.etl``, ``functions.m:f``."""
        found: dict[str, dict[str, Said]] = {"defaults": {}, "queues": {}, "functions": {}}
        for table, said in rules.items():
            kind, _, name = table.partition(".")
            found[kind][name] = {key: v for key, v in said.items() if key not in OF_QUEUE}
        return cls(found["defaults"].get("", {}), found["queues"], found["functions"])

    def policy(
        self, function: str, said: Said | None, keep: Callable[[bytes], bytes] = bytes
    ) -> Policy | None:
        """Return what holds for a submit; None: all as built in.

        The submit outranks the function, the function its queue, the queue ``[defaults]``.
        ``keep`` takes the encoded variables, and returns what stands for them.

        Raises:
            UsageError: a value is none of the option's.
        """
        if not said and not self.defaults and not self.functions and not self.queues:
            return None
        of_function = self.functions.get(function, {})
        said = said or {}
        queue = said.get("queue") or of_function.get("queue") or self.defaults.get("queue")
        layers: list[tuple[str, Said]] = [
            ("[defaults]", self.defaults),
            (f"[queues.{queue}]", self.queues.get(str(queue or BUILT_IN.queue), {})),
            (f'[functions."{function}"]', of_function),
            ("submit", said),
        ]
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for origin, layer in layers:
            values = laid_over(values, layer)
            origins.update(dict.fromkeys(layer, origin))
        if not values:
            return None
        if "concurrency" in said and not values.get("concurrency_key"):
            raise UsageError(
                "concurrency: without a concurrency_key it limits nothing",
                "give both: --concurrency-key db --concurrency 2",
            )
        if "env" in values:
            refuse_large(values["env"])
            values["env"] = keep(encoded(values["env"])) if values["env"] else b""
        try:
            return msgspec.convert({**values, "origins": origins}, Policy)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"an option cannot be used: {error}", "see 'jobd submit --help'"
            ) from error
