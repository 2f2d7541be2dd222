"""Clients that remember what they were told, and what they still wait for."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
from fake_pool import CODE
from fake_streams import FUNCTION as STREAM
from fake_streams import Follower
from simulation_arrays import choose_array, gathered
from simulation_queues import NAMES, Change, choose_change

from jobd.model.edges import When
from jobd.model.item import item_of
from jobd.model.job import NO_ARGS, PUT, ArraySpec
from jobd.model.messages import (
    OWN_KEY,
    Accepted,
    Answers,
    Apply,
    Cancel,
    Ended,
    Find,
    Follow,
    Gather,
    Hold,
    Items,
    Jobs,
    List,
    Message,
    More,
    Pieces,
    Ping,
    Pong,
    Put,
    QueueInfos,
    Refused,
    Release,
    Reload,
    Retry,
    SetArray,
    SetQueue,
    Stop,
    Submit,
    Submitted,
    Unfollow,
    Watch,
    Watching,
    decode_replies,
    encode,
)
from jobd.model.options import Said, encode_options
from jobd.model.selector import Selector
from jobd.model.states import State

FUNCTIONS = ("m:short", "m:short", "m:fickle", "m:long", "m:killer")


KEYS: list[tuple[str, list[str]]] = [
    ("live", ["live"]),
    ("wait", ["waiting"]),
    ("run", ["running"]),
    ("run-wait", ["waiting", "running"]),
]

Asked = (
    Submit
    | Put
    | Apply
    | Watch
    | Find
    | List
    | Cancel
    | Retry
    | Hold
    | Release
    | Ping
    | Stop
    | Reload
    | Follow
    | More
    | Unfollow
    | Gather
    | SetArray
    | Change
)


class Submission(msgspec.Struct):
    """A submit with its key, as long as it is not answered."""

    uid: bytes
    function: str
    args: list[bytes]
    watch: bool
    check: bool
    nargs: int
    options: bytes
    inputs: list[list[int | bytes]]
    after: list[tuple[int | bytes, When]]
    jobs: list[Submit] = []
    """What it has instead of a function, if it is a graph."""
    array: ArraySpec | None = None
    chunks: list[tuple[int, bytes]] = []


class Wrong(AssertionError):
    """A client was told what it must not be told."""


class FakeClient:
    """One client; ``send`` takes its frames, ``now_s`` is when it last pinged."""

    def __init__(
        self,
        number: int,
        rng: Random,
        send: Callable[[bytes, bytes], None],
        *,
        nests: float = 0.0,
        streams: float = 0.0,
        depends: float = 0.0,
        limited: float = 0.0,
        retries: float = 0.0,
        timed: float = 0.0,
        held: float = 0.0,
        ordered: float = 0.0,
        queued: float = 0.0,
    ) -> None:
        self.number = number
        self.depends = depends
        self.limited = limited
        """How often it submits jobs that have others for inputs."""
        self.retries, self.timed, self.held = retries, timed, held
        self.ordered = ordered
        """How often the jobs have options of the kind."""
        self.queued = queued
        """How often they are in another queue than the default one."""
        self.nests = nests
        """How often it submits a job that itself submits jobs, and waits for them."""
        self.streams = streams
        """How often it submits a job that produces a stream."""
        self.plain = 0.0 if streams > 0.5 else (0.0, 0.2, 0.8)[int(rng.random() * 3)]
        """How often what it submits is one job without any options, as most jobs are."""
        self.session = b"client%02d" % number
        self.peer = self.session
        self.known: list[int] = []
        """Ids of jobs that it was told to be durable."""
        self.arrays: dict[int, int] = {}
        """Of those the arrays, and how many items each has."""
        self.open: dict[bytes, Submission] = {}
        """Submits without an answer, by key."""
        self.refused: dict[bytes, Submission] = {}
        self.answers: dict[bytes, tuple[int, int]] = {}
        self.waits: set[int] = set()
        """Jobs of whose end it has still to be told."""
        self.asked: dict[int, Message] = {}
        """Other requests that are not answered."""
        self.told: dict[int, Ended] = {}
        self.follower = Follower(self.ask)
        self._unfollowed: set[int] = set()
        """What it follows and the daemon does not know of."""
        self.frames = 0
        self.pinged_at = 0
        self._keys: dict[int, bytes] = {}
        """The key that each submit was sent with, by the number of its request."""
        self._asked: dict[bytes, int] = {}
        """The last request for each key that is not answered."""
        self._unwatched: set[int] = set()
        """Of those, the ones that the daemon does not know of, because it is a new one."""
        self._rng = rng
        self._send = send
        self._rid = 0
        self._next_key = 0
        self._next_job = 0

    # -- asking --

    def ask(self, message: Asked) -> None:
        """Send one request."""
        if not isinstance(message, Submit | Put | Apply | Stop | Reload | Follow | More | Unfollow):
            self.asked[message.rid] = message
        self._send(self.peer, encode([message]))

    def rid(self) -> int:
        """Return a new number for a request."""
        self._rid += 1
        return self._rid

    def submit(self, *, one: bool = False, claim: bool = False) -> Submission:
        """Submit one job or several under a new key; with ``claim`` one that is unique."""
        dice = self._rng.random
        count = 1 if one or dice() < 0.6 else int(dice() * 9) + 2
        keyed = self._key() if claim else {}
        plain = not keyed and dice() < self.plain
        count = 1 if keyed or plain else count
        self._next_key += 1
        uid = self.session + self._next_key.to_bytes(8, "big")
        nests = dice() < self.nests
        function = "m:nest" if nests else FUNCTIONS[int(dice() * len(FUNCTIONS))]
        function = STREAM if dice() < self.streams and not plain else function
        first, self._next_job = self._next_job, self._next_job + count
        pad = b"." * int(dice() * 12)
        args = [b"%d-%d%s" % (self.number, n, pad) for n in range(first, first + count)]
        check, nargs = dice() < 0.2, int(dice() * 3)
        options = b"" if plain else encode_options(self._options(function) | keyed)
        alone = one or plain
        inputs = [] if alone or dice() > self.depends else [self._values() for _ in args]
        after: list[tuple[int | bytes, When]] = []
        if not alone and dice() < self.depends:
            after = [(name, tuple(When)[int(dice() * 3)]) for name in self._inputs()]
        watch = dice() < 0.6
        submission = Submission(uid, function, args, watch, check, nargs, options, inputs, after)
        self.open[uid] = submission
        self.resend(uid)
        return submission

    def graph(self) -> Submission:
        """Submit some jobs that come after each other, and after others, under a new key."""
        dice = self._rng.random
        self._next_key += 1
        uid = self.session + self._next_key.to_bytes(8, "big")
        jobs: list[Submit] = []
        for place in range(int(dice() * 5) + 1):
            function = STREAM if dice() < self.streams else FUNCTIONS[int(dice() * len(FUNCTIONS))]
            own = [OWN_KEY + n.to_bytes(8, "big") for n in range(place) if dice() < 0.5]
            inputs: list[int | bytes] = [name for name in own if dice() < 0.5]
            others = [name for name in (*own, *self._inputs()) if name not in inputs]
            call = Submit(0, b"", function, [b"%d-%d" % (self.number, self._next_job)], [(0, ())])
            call.check, call.options = dice() < 0.2, encode_options(self._options(function))
            call.inputs = [inputs] if inputs or dice() < 0.5 else []
            call.after = [(name, tuple(When)[int(dice() * 3)]) for name in dict.fromkeys(others)]
            jobs.append(call)
            self._next_job += 1
        args = [call.args[0] for call in jobs]
        order = Submission(uid, "graph", args, dice() < 0.6, True, 0, b"", [], [], jobs)
        self.open[uid] = order
        self.resend(uid)
        return order

    def submit_array(self) -> Submission:
        """Submit an array under a new key."""
        dice = self._rng.random
        self._next_key += 1
        uid = self.session + self._next_key.to_bytes(8, "big")
        nests = dice() < self.nests
        function = "m:nest" if nests else FUNCTIONS[int(dice() ** 2 * len(FUNCTIONS))]
        name = b"%d-%d" % (self.number, self._next_job)
        self._next_job += 1
        spec, chunks = choose_array(dice, name)
        options = encode_options({} if dice() < 0.5 else self._options(function))
        watch, check = dice() < 0.6, dice() < 0.2
        after: list[tuple[int | bytes, When]] = []
        if dice() < self.depends:
            after = [(other, tuple(When)[int(dice() * 3)]) for other in self._inputs()]
        args = [name + CODE + NO_ARGS]
        order = Submission(uid, function, args, watch, check, 0, options, [], after)
        order.array, order.chunks = spec, chunks
        self.open[uid] = order
        self.resend(uid)
        return order

    def _some_array(self) -> int:
        """Choose an array; 0: it knows of none."""
        arrays = [*self.arrays]
        return arrays[int(self._rng.random() * len(arrays))] if arrays else 0

    def _part(self, number: int) -> Selector:
        """Select an array, or some of its items."""
        dice, items = self._rng.random, self.arrays[number]
        if dice() < 0.35 or not items:
            failed = [State.FAILED, State.CRASHED, State.CANCELLED, State.ABORTED]
            live = [State.QUEUED, State.RUNNING]
            states = [(failed + live)[int(dice() * 6)]] if dice() < 0.4 else []
            return Selector([(number, number)], 0, False, states)
        low = int(dice() * items)
        high = low + int(dice() * 4)
        return Selector([(item_of(number, low), item_of(number, high))], 0, False, [])

    def change_array(self) -> str:
        """Cancel or retry an array or a part of one, hold it, release it, or give it other slots."""
        number, dice = self._some_array(), self._rng.random
        if not number:
            return "nothing"
        kind, rid, whole = dice(), self.rid(), Selector([(number, number)], 0, False, [])
        if kind < 0.35:
            grace_s = (None, None, 0.0, 0.002)[int(dice() * 4)]
            self.ask(Cancel(rid, self._part(number), "so it is", dice() < 0.3, grace_s))
            return f"to cancel of array {number}"
        if kind < 0.75:
            self.ask(Retry(rid, self._part(number)))
            return f"to retry of array {number}"
        if kind < 0.85:
            self.ask(Hold(rid, whole))
            return f"to hold array {number}"
        if kind < 0.95:
            self.ask(Release(rid, whole))
            return f"to release array {number}"
        self.ask(SetArray(rid, number, int(dice() * 3)))
        return f"for other slots of array {number}"

    def gather(self) -> None:
        """Ask what has ended of an array."""
        number, dice = self._some_array(), self._rng.random
        if number:
            low = int(dice() * (self.arrays[number] + 1))
            wanted = [(0, self.arrays[number]), (low, low + int(dice() * 4))][int(dice() * 2)]
            self.ask(Gather(self.rid(), number, [wanted], dice() < 0.5, dice() < 0.7))

    def _key(self) -> Said:
        """Choose one of a few keys; its name says in which states its jobs are unique."""
        dice = self._rng.random
        name, unique = KEYS[int(dice() ** 2 * len(KEYS))]
        what = ("return", "fail", "replace", "replace")[int(dice() * 4)]
        said: Said = {"key": name, "unique": unique, "if_exists": what}
        return said | {"hold": True} if dice() < 0.5 else said

    def put(self) -> Submission:
        """Put a value under a new key."""
        self._next_key += 1
        uid = self.session + self._next_key.to_bytes(8, "big")
        value = b"j%d" % (self.number * 1_000_000 + self._next_key)
        watch = self._rng.random() < 0.6
        self.open[uid] = Submission(
            uid, PUT, [value], watch, check=False, nargs=0, options=b"", inputs=[], after=[]
        )
        self.resend(uid)
        return self.open[uid]

    def _options(self, function: str) -> Said:
        dice = self._rng.random
        said: Said = {"bound": int(dice() * 3) + 1} if function == STREAM else {}
        if dice() < self.limited:
            said["timeout"] = int(dice() * 5) * 0.001
            said["soft_timeout"] = int(dice() * 2) * 0.001
            said["kill_grace"] = int(dice() * 3) * 0.001
            said["nice"] = int(dice() * 2)
        if dice() < self.retries:
            said |= {
                "retries": int(dice() * 4),
                "backoff": ("0", "fixed:10ms", "linear:50ms")[int(dice() * 3)],
            }
            said |= [{}, {"retry_on": ["E"]}, {"retry_on": ["timed_out"]}, {"no_retry_on": ["F"]}][
                int(dice() * 4)
            ]
        if dice() < self.retries:
            said["max_crashes"] = int(dice() * 4)
        if dice() < self.timed:
            said["in"] = int(dice() * 4) * 0.1
        if dice() < self.timed:
            said["expires"] = dice() * 0.4 + 0.01
        if dice() < self.held:
            said["hold"] = True
        if dice() < self.queued:
            said["queue"] = NAMES[int(dice() * len(NAMES))]
        if dice() < self.ordered:
            said |= self._order()
        return said

    def _order(self) -> Said:
        """Choose some of the options that say whose turn it is."""
        dice, said = self._rng.random, Said()
        if dice() < 0.5:
            said["priority"] = int(dice() * 3) - 1
        if dice() < 0.5:
            said["fair_key"] = "abcd"[int(dice() * 4)]
        if dice() < 0.4:
            said["concurrency_key"] = "xy"[int(dice() * 2)]
            said["concurrency"] = int(dice() * 2) + 1
        return said

    def resend(self, uid: bytes) -> None:
        """Send a submit (again), with the key that it has."""
        order = self.open[uid]
        rid = self.rid()
        self._keys[rid] = uid
        self._asked[uid] = rid
        if order.function == PUT:
            self.ask(Put(rid, uid, order.args[0], order.watch))
            return
        if order.jobs:
            self.ask(Apply(rid, uid, order.jobs, order.watch))
            return
        shapes: list[tuple[int, tuple[str, ...]]] = [(order.nargs, ())]
        self.ask(
            Submit(
                rid,
                uid,
                order.function,
                order.args,
                shapes,
                check=order.check,
                watch=order.watch,
                options=order.options,
                inputs=order.inputs,
                after=order.after,
                array=order.array,
                chunks=order.chunks,
            )
        )

    def _values(self) -> list[int | bytes]:
        """Choose some jobs that have values, or will: arrays have none."""
        arrays = {uid for uid, order in self.open.items() if order.array is not None}
        names = self._inputs()
        return [
            n
            for n in names
            if (n not in self.arrays if isinstance(n, int) else n[:16] not in arrays)
        ]

    def _inputs(self) -> list[int | bytes]:
        """Choose some jobs: most of them recent ones, or such as are not answered yet."""
        dice = self._rng.random
        found: list[int | bytes] = []
        for _ in range(int(dice() * 4)):
            if self.open and dice() < 0.4:
                order = list(self.open.values())[-1]
                found.append(order.uid + int(dice() * len(order.args)).to_bytes(8, "big"))
            elif self.known:
                recent = self.known[-8:] if dice() < 0.8 else self.known
                found.append(recent[int(dice() * len(recent))])
        return found

    def try_again(self) -> None:
        """Send a submit once more that was refused."""
        if self.refused:
            uid = next(iter(self.refused))
            self.open[uid] = self.refused.pop(uid)
            self.resend(uid)

    def watch(self, ids: list[int]) -> None:
        """Ask to be told of these ends."""
        for number in ids:
            self.told.pop(number, None)
        self.waits.update(ids)
        self.ask(Watch(self.rid(), ids))

    def follow(self, number: int) -> None:
        """Follow a job, be it a stream or not."""
        self.follower.follow(self.rid(), number, int(self._rng.random() * 4) + 1)

    def consume(self) -> tuple[bytes, int] | None:
        """Consume something of what it follows; return of what, and up to which item."""
        return self.follower.consume(self._choose)

    def turn_away(self) -> None:
        """Stop following something, for good or for now."""
        self.follower.turn_away(self._choose)

    def _choose(self, under: int) -> int:
        return int(self._rng.random() * under)

    def change_queue(self) -> Change:
        """Ask something about queues, or change one."""
        change = choose_change(self._rng, self.rid())
        self.ask(change)
        return change

    def resume(self, queue: str) -> Change:
        """Resume a queue, if it is there."""
        change = SetQueue(self.rid(), queue, paused=False, known=True)
        self.ask(change)
        return change

    def cancel(self) -> None:
        """Cancel some jobs, sometimes only if they wait, or with another grace than their own."""
        only_waiting = self._rng.random() < 0.3
        grace_s = (None, None, 0.0, 0.002, 1.0)[int(self._rng.random() * 5)]
        self.ask(Cancel(self.rid(), self._selector(), "so it is", only_waiting, grace_s))

    def retry(self) -> None:
        """Queue some jobs again."""
        self.ask(Retry(self.rid(), self._selector()))

    def hold(self) -> None:
        """Set some jobs aside."""
        self.ask(Hold(self.rid(), self._selector()))

    def release(self) -> None:
        """Let some jobs go."""
        self.ask(Release(self.rid(), self._selector()))

    def release_all(self) -> None:
        """Let all jobs go."""
        self.ask(Release(self.rid(), Selector([], 0, True, [State.HELD])))

    def retry_all(self) -> None:
        """Queue all jobs again that have failed by themselves."""
        failed = [State.FAILED, State.CRASHED, State.CANCELLED]
        self.ask(Retry(self.rid(), Selector([], 0, True, failed)))

    def look(self) -> None:
        """List jobs, or find some."""
        if self._rng.random() < 0.5:
            self.ask(List(self.rid(), self._selector(), 0, 3))
        else:
            self.ask(Find(self.rid(), self._selector()))

    def ping(self, now_us: int) -> None:
        """Give a sign of life."""
        self.pinged_at = now_us
        self.ask(Ping(self.rid()))

    def stop_daemon(self) -> None:
        """Stop the daemon."""
        self.ask(Stop(self.rid(), (None, 0.0, 0.01, 1.0)[int(self._rng.random() * 4)]))

    def reload(self) -> None:
        """Have all workers replaced."""
        self.ask(Reload(self.rid()))

    def _selector(self) -> Selector:
        dice = self._rng.random
        if not self.known or dice() < 0.2:
            failed = [State.FAILED, State.CRASHED]
            states = [[], [State.QUEUED], failed, [State.RUNNING], [State.HELD]]
            chosen = states[int(dice() * len(states))]
            return Selector([], 0, True, chosen) if dice() < 0.6 else Selector([], 3, False, chosen)
        number = self.known[int(dice() * len(self.known))]
        return Selector([(number, number + int(dice() * 4))], 0, False, [])

    # -- hearing --

    def hear(self, frame: bytes) -> None:
        """Take in a frame."""
        self.frames += 1
        for message in decode_replies(frame):
            self._hear(message)

    def _hear(self, message: Message) -> None:
        match message:
            case Submitted():
                self._submitted(message)
            case Items():
                self.follower.hear(message)
            case Refused(rid):
                self.follower.passes.pop(rid, None)
                self.asked.pop(rid, None)
                self._refused(rid)
            case Ended(number):
                self.told[number] = message
                self.waits.discard(number)
            case Watching(rid, unknown):
                del self.asked[rid]
                if not self.waits.isdisjoint(unknown):
                    raise Wrong(f"{self.peer!r} watched {unknown}, which are said to be unknown")
            case Answers(rid, _, more) | Jobs(rid, _, more):
                if not more or isinstance(self.asked[rid], List):
                    del self.asked[rid]
            case Pieces(rid):
                asked = self.asked.pop(rid)
                assert isinstance(asked, Gather)
                gathered(asked, message)
            case QueueInfos(rid) | Accepted(rid):
                self.asked.pop(rid, None)
            case Pong(rid, sent):
                del self.asked[rid]
                if sent != self.frames:
                    raise Wrong(f"{self.peer!r} got {self.frames} frames, was sent {sent}")

    def _submitted(self, message: Submitted) -> None:
        uid = self._keys[message.rid]
        self._asked.pop(uid, None)
        span = (message.first, message.count)
        if self.answers.setdefault(uid, span) != span:
            raise Wrong(f"the key {uid!r} stands for {self.answers[uid]} and for {span}")
        order = self.open.pop(uid, None) or self.refused.pop(uid, None)
        if order is None:
            return
        if message.count != len(order.args):
            raise Wrong(f"{len(order.args)} jobs were submitted as {uid!r}, {span} are told")
        ids = range(message.first, message.first + message.count)
        self.known += ids
        if order.array is not None:
            self.arrays[message.first] = order.array.items
        if order.watch:
            self.waits.update(n for n in ids if n not in self.told)

    def _refused(self, rid: int) -> None:
        uid = self._keys.get(rid, b"")
        if self._asked.get(uid) == rid:  # who has sent it again waits for the later answer
            del self._asked[uid]
            self.refused[uid] = self.open.pop(uid)

    # -- the daemon has changed --

    def reconnect(self, peer: bytes) -> None:
        """Meet another daemon: what was not answered has to be asked again."""
        self.peer = peer
        self.frames = 0
        self._keys.clear()
        self._asked.clear()
        self.asked.clear()
        self._unwatched = set(self.waits)
        self._unfollowed = set(self.follower.passes)
        for one in self.follower.passes.values():
            one.is_again = True

    def remind(self) -> None:
        """Send again all that waits for an answer."""
        for uid in list(self.open):
            if uid not in self._asked:
                self.resend(uid)
        if self._unwatched:
            self.watch(sorted(self._unwatched))
            self._unwatched.clear()
        for rid in sorted(self._unfollowed & self.follower.passes.keys()):
            one = self.follower.passes[rid]
            self.follower.follow(rid, one.job, one.credit)
        self._unfollowed.clear()
