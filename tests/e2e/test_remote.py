"""Clients on other machines: over TCP with keys, and by way of ssh."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from harness import DaemonUnderTest, eventually, lines

import jobd
from jobd.client import Client
from jobd.daemon.remote import NEEDS
from jobd.model.messages import Request
from jobd.model.selector import Selector
from jobd.wire import keys

WITHIN_S = 2.0
SILENT_WITHIN_S = 5.0
ALL = Selector(all=True)

MODULE = """
import numpy as np

def double(array):
    return array * 2

def large(n):
    return np.arange(n)

def size(data):
    return len(data)

def count(n):
    yield from range(n)

def pieces(n):
    for i in range(n):
        yield np.full(50_000, i)

def say(text):
    print(text, flush=True)
    return text
"""


def free_port() -> int:
    """Return a port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Elsewhere:
    """A daemon that listens for other machines, and the keys of its clients."""

    def __init__(self, daemon: DaemonUnderTest, **rights: str) -> None:
        """Make a key for each name, with these rights, and start."""
        self.daemon = daemon
        self.port = free_port()
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        for name in rights:
            assert daemon.cli("key", "new", name).returncode == 0
        allow = [
            f"{daemon.work_dir}/{name}.pub" + (f"={said}" if said else "")
            for name, said in rights.items()
        ]
        daemon.write_module("far", MODULE)
        daemon.environ |= {
            "JOBD_REMOTE_LISTEN": self.endpoint,
            "JOBD_REMOTE_ALLOW": os.pathsep.join(allow),
        }
        daemon.start()

    def key(self, name: str) -> str:
        """Return the path of a key."""
        return f"{self.daemon.work_dir}/{name}.key"

    def environ(self, name: str, endpoint: str = "") -> dict[str, Any]:
        """Return what a client with this key has in its environment."""
        return {"JOBD_SOCKET": endpoint or self.endpoint, "JOBD_KEY": self.key(name)}


@pytest.fixture(scope="module")
def far() -> Iterator[Elsewhere]:
    """Return a daemon for all tests that do it no harm."""
    with DaemonUnderTest() as daemon:
        yield Elsewhere(
            daemon.write_jobs(),
            laptop="",
            reader="read",
            sender="submit",
            boss="control",
            both="read+submit",
        )


@pytest.fixture
def connect(far: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Client]]:
    """Return what connects as somebody."""
    made: list[Client] = []

    def connect(name: str = "laptop") -> Client:
        monkeypatch.setenv("JOBD_KEY", far.key(name))
        made.append(Client(far.endpoint, timeout_s=20))
        return made[-1]

    yield connect
    for client in made:
        client.close()


Connect = Callable[..., Client]


# --- what a client can do from there


def test_a_job_by_the_command_line(far: Elsewhere) -> None:
    """As the README shows it."""
    ran = far.daemon.cli("submit", "--wait", "math:factorial", "20", **far.environ("laptop"))
    assert (ran.returncode, ran.stdout) == (0, "2432902008176640000\n")


@pytest.mark.parametrize(
    "words",
    [
        ["ping"],
        ["status"],
        ["ls"],
        ["queue", "ls"],
        ["show", "last"],
        ["graph", "last"],
        ["failed"],
        ["result", "--wait", "last"],
        ["reload"],
        ["run", "--wait", "--", "true"],
    ],
    ids=" ".join,
)
def test_every_command_works(far: Elsewhere, words: list[str]) -> None:
    """With no other option than where the daemon is."""
    environ = far.environ("laptop")
    assert far.daemon.cli("submit", "--wait", "work:add", "1", "2", **environ).returncode == 0
    ran = far.daemon.cli(*words, **environ)
    assert ran.returncode == 0, ran.stderr


def test_large_payloads_go_through_the_wire(connect: Connect) -> None:
    """There and back, writable as elsewhere, though no file of the daemon can be mapped."""
    client = connect()
    assert client.welcome.place is None
    array = np.arange(200_000)
    doubled = client.submit("far:double", array).result(20)
    assert (doubled == array * 2).all()
    doubled[0] = 7
    number = client.submit("far:large", 100_000).id
    assert (client.attach(number).result(20) == np.arange(100_000)).all()
    assert (client.take(number, 20) == np.arange(100_000)).all()
    value = client.put(b"x" * 100_000)
    assert client.submit("far:size", value).result(20) == 100_000


def test_streams_and_output(connect: Connect) -> None:
    """Items, large ones too, and what a job prints."""
    client = connect()
    assert list(client.submit("far:count", 1000)) == list(range(1000))
    found = [piece[0] for piece in client.submit("far:pieces", 20)]
    assert found == list(range(20))
    job = client.submit("far:say", "hello")
    assert b"".join(client.logs(job.id, follow=True)) == b"hello\n"


def test_many_jobs(connect: Connect) -> None:
    """One by one, in bulk, and by map."""
    client = connect()
    jobs = [client.submit("work:add", n, 1) for n in range(2000)]
    assert [job.result(20) for job in jobs] == list(range(1, 2001))
    jobs = client.submit_many("work:add", [(n, 1) for n in range(5000)])
    assert sum(job.result(20) for job in jobs) == sum(range(1, 5001))
    assert list(client.map("work:add", range(100))) == list(range(1, 101))


def test_the_asynchronous_client(far: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop hears of all that comes, though libzmq's descriptor tells of changes only."""
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))

    async def work() -> None:
        async with jobd.AsyncClient(far.endpoint, timeout_s=20) as client:
            jobs = [client.submit("work:add", n, 1) for n in range(1000)]
            assert [await job.result(20) for job in jobs] == list(range(1, 1001))
            assert [item async for item in client.submit("far:count", 300)] == list(range(300))
            for _ in range(50):
                assert await client.ping() < 20

    asyncio.run(asyncio.wait_for(work(), 40))


def test_the_executor(far: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions go by value."""
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))
    with jobd.Executor(socket=far.endpoint) as executor:
        assert executor.submit(lambda a, b: a * b, 6, 7).result(20) == 42
        assert list(executor.map(abs, range(-500, 0), chunksize=10)) == list(range(500, 0, -1))


def test_threads_share_a_client(connect: Connect) -> None:
    """One of them reads for all."""
    client = connect()
    got: list[int] = []

    def work() -> None:
        got.extend(client.submit("work:add", n, 1).result(20) for n in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert sorted(got) == sorted(list(range(1, 201)) * 4)


# --- what each key may do


def test_every_request_has_its_rights() -> None:
    """A new one has to be given some: until then nobody may ask for it."""
    assert set(NEEDS) == set(get_args(Request))
    assert all(set(rights) <= set(keys.RIGHTS) for rights in NEEDS.values())


READ = [["ls"], ["show", "1"], ["queue", "ls"], ["logs", "1"]]
SUBMIT = [["submit", "work:add", "1", "2"], ["run", "--", "true"]]
CONTROL = [
    ["cancel", "1"],
    ["reload"],
    ["hold", "1"],
    ["retry", "1"],
    ["queue", "pause", "default"],
]


@pytest.mark.parametrize(
    ("name", "may", "may_not"),
    [
        ("reader", READ, SUBMIT + CONTROL),
        ("sender", SUBMIT, [*READ, *CONTROL]),
        ("boss", [["reload"], ["queue", "resume", "default"]], READ + SUBMIT),
        ("both", READ + SUBMIT, CONTROL),
    ],
)
def test_a_key_may_do_what_it_was_given(
    far: Elsewhere, name: str, may: list[list[str]], may_not: list[list[str]]
) -> None:
    """And nothing else: 77, and a sentence that names the key and the right."""
    far.daemon.cli("submit", "--wait", "work:add", "1", "2")
    for words in may:
        ran = far.daemon.cli(*words, **far.environ(name))
        assert ran.returncode == 0, ran.stderr
    for words in may_not:
        ran = far.daemon.cli(*words, **far.environ(name))
        assert ran.returncode == 77, words
        assert f"the key '{name}' may not" in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_who_may_submit_gets_what_comes_of_it(connect: Connect) -> None:
    """Results and streams of jobs; that is part of submitting."""
    client = connect("sender")
    assert client.submit("work:add", 1, 2).result(20) == 3
    assert list(client.submit("far:count", 10)) == list(range(10))


# --- how many there may be


def test_clients_from_elsewhere_count_among_all(
    make_daemon: Callable[..., DaemonUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is told the same, whichever way it comes; who leaves makes room for both."""
    far = Elsewhere(make_daemon(limits__max_clients=2).write_jobs(), laptop="")
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))
    places = [far.daemon.socket, far.endpoint]

    def told(place: str) -> str:
        with pytest.raises(jobd.TooManyClients) as caught:
            Client(place, timeout_s=20)
        return str(caught.value)

    def is_served(place: str) -> bool:
        with suppress(jobd.TooManyClients), Client(place, timeout_s=20) as client:
            return bool(client.submit("work:add", 1, 2).result(20) == 3)
        return False

    for first in places:
        with Client(first, timeout_s=20) as one:
            with Client(far.endpoint, timeout_s=20) as two:
                for _ in range(5):
                    said = {told(place) for place in places}
                    assert len(said) == 1
                    assert said.pop().startswith(
                        "2 clients are connected, as many as this daemon serves"
                    )
                assert [c.submit("work:add", 1, 2).result(20) for c in (one, two)] == [3, 3]
                assert [t for t in one.status().trouble if "clients were sent away" in t]
                assert far.daemon.cli("ls", **far.environ("laptop")).returncode == 75
                assert far.daemon.cli("ping", **far.environ("laptop")).returncode == 0
                with Client(far.endpoint, errand=True) as errand:
                    assert errand.status().pid
                    with pytest.raises(jobd.TooManyClients):
                        errand.submit("work:add", 1, 2).result(20)
            for place in places:
                eventually(partial(is_served, place))
        eventually(partial(is_served, first))


# --- why there is no connection


def told(far: Elsewhere, **environ: Any) -> str:
    """Return what a command says that cannot reach its daemon, and make sure that it says it soon."""
    began = time.monotonic()
    ran = far.daemon.cli("ls", **far.environ("laptop") | environ)
    took = time.monotonic() - began
    assert ran.returncode in (69, 77, 78)
    assert ran.stderr.count("\n") == 1
    assert took < WITHIN_S + 1.0, took  # a busy machine takes its time to start Python
    return ran.stderr


@contextmanager
def other_server(said: bytes) -> Iterator[str]:
    """Listen as something that speaks another protocol, and says this when it has heard a line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(accepted: socket.socket) -> None:
            with accepted, accepted.makefile("rb") as file, suppress(OSError):
                accepted.settimeout(5)
                file.readline()
                accepted.sendall(said)

        def serve() -> None:
            threads: list[threading.Thread] = []
            with suppress(OSError):  # the end
                while True:
                    accepted, _ = listener.accept()
                    threads.append(threading.Thread(target=answer, args=(accepted,)))
                    threads[-1].start()
            for each in threads:
                each.join()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_four_reasons_are_four_sentences(far: Elsewhere) -> None:
    """A wrong key, a wrong server, nobody, another protocol: each within two seconds."""
    far.daemon.cli("key", "new", "stranger")
    wrong_key = told(far, JOBD_KEY=far.key("stranger"))
    wrong_server = told(far, JOBD_SERVER_KEY="07" * 32)
    nobody = told(far, JOBD_SOCKET=f"tcp://127.0.0.1:{free_port()}")
    with other_server(b"HTTP/1.0 400 Bad Request\r\n\r\n") as endpoint:
        another = told(far, JOBD_SOCKET=endpoint)
    assert "does not know the key" in wrong_key
    assert "has not the key that" in wrong_server
    assert "no daemon at" in nobody
    assert "is no jobd" in another
    assert len({wrong_key, wrong_server, nobody, another}) == 4


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"JOBD_KEY": ""}, "lets in nobody without a key"),
        ({"JOBD_KEY": "nowhere.key"}, "there is no key"),
        ({"JOBD_KEY": "laptop.pub"}, "the secret half"),
        ({"JOBD_SERVER_KEY": "short"}, "server_key is no key"),
        ({"JOBD_SOCKET": "tcp://nowhere"}, "HOST:PORT"),
        ({"JOBD_SOCKET": "http://127.0.0.1:1"}, "no place for a daemon"),
    ],
)
def test_what_is_missing_is_said(far: Elsewhere, environ: dict[str, Any], sentence: str) -> None:
    """Before anybody is asked."""
    assert sentence in told(far, **environ)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "nobody is allowed to use"),
        ({"JOBD_REMOTE_ALLOW": "nobody.pub"}, "there is no key"),
        ({"JOBD_REMOTE_ALLOW": "one.pub=fly"}, "a key has no right 'fly'"),
        (
            {"JOBD_REMOTE_ALLOW": "one.pub", "JOBD_REMOTE_LISTEN": "tcp://127.0.0.1:x"},
            "cannot listen",
        ),
    ],
)
def test_a_daemon_that_nobody_may_use_does_not_listen(
    make_daemon: Callable[..., DaemonUnderTest], settings: dict[str, Any], sentence: str
) -> None:
    """It does not even start, and says what is missing."""
    daemon = make_daemon()
    daemon.cli("key", "new", "one")
    listen = {"JOBD_REMOTE_LISTEN": f"tcp://127.0.0.1:{free_port()}"}
    daemon.start(wait=False, **listen | settings)
    assert daemon.wait() == 78
    assert sentence in daemon.log


def test_a_daemon_without_a_key_does_not_listen(
    make_daemon: Callable[..., DaemonUnderTest],
) -> None:
    """A client could not tell it from another."""
    daemon = make_daemon()
    daemon.cli("key", "new", "one", "--server", "07" * 32)
    daemon.start(
        wait=False,
        JOBD_REMOTE_LISTEN=f"tcp://127.0.0.1:{free_port()}",
        JOBD_REMOTE_ALLOW="one.pub",
    )
    assert daemon.wait() == 78
    assert "server.key" in daemon.log


def test_a_daemon_has_its_own_socket_here(far: Elsewhere) -> None:
    """A client's variable for another machine is not meant for it."""
    ran = far.daemon.cli("start", JOBD_SOCKET=far.endpoint)
    assert ran.returncode == 2
    assert "a daemon's own socket is a path" in ran.stderr


# --- keys


def test_keys_are_files(far: Elsewhere) -> None:
    """The secret half is for its owner; nothing is overwritten; the daemon's public one can be shown."""
    secret, public = Path(far.key("laptop")), Path(far.key("laptop")).with_suffix(".pub")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "secret" not in public.read_text(encoding="ascii").partition("public =")[2]
    shown = far.daemon.cli("key", "show").stdout.strip()
    assert keys.read_key(str(secret)).server.hex() == shown
    before = secret.read_bytes()
    again = far.daemon.cli("key", "new", "laptop")
    assert again.returncode == 78
    assert "is there already" in again.stderr
    assert secret.read_bytes() == before
    made = json.loads(far.daemon.cli("key", "new", "json", "--json").stdout)
    assert made["server"] == shown
    assert keys.read_key(made["key"]).public.hex() == made["public"]


# --- a network that goes silent


class Proxy:
    """Stands between a client and a daemon, and can fall silent without a word."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._answers: set[socket.socket] = set()
        self._mute: set[socket.socket] = set()
        self._wake, self._woken = socket.socketpair()
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def silence(self, *, answers_only: bool) -> None:
        """Carry no more on the connections that there are; new ones are served."""
        self._mute |= self._answers if answers_only else set(self._pairs)
        self._wake.send(b".")

    def _run(self) -> None:
        while not self._is_over:
            live = [one for one in self._pairs if one not in self._mute]
            for one in select.select([self._listener, self._woken, *live], [], [])[0]:
                if one is self._woken:
                    one.recv(100)
                elif one is self._listener:
                    client, _ = one.accept()
                    daemon = socket.create_connection(("127.0.0.1", self._target))
                    self._pairs |= {client: daemon, daemon: client}
                    self._answers.add(daemon)
                elif one in self._pairs and one not in self._mute:
                    self._carry(one)

    def _carry(self, one: socket.socket) -> None:
        try:
            data = one.recv(1 << 16)
            self._pairs[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            other = self._pairs.pop(one)
            self._pairs.pop(other, None)
            one.close()
            other.close()

    def close(self) -> None:
        """End."""
        self._is_over = True
        self._wake.send(b".")
        self._thread.join(10)
        for one in (*self._pairs, self._listener, self._wake, self._woken):
            one.close()


@pytest.fixture
def proxy(far: Elsewhere) -> Iterator[Proxy]:
    """Return a proxy in front of the daemon."""
    with closing(Proxy(far.port)) as made:
        yield made


@pytest.mark.parametrize("answers_only", [False, True])
def test_silence_is_noticed_and_makes_no_second_job(
    far: Elsewhere,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    mark: Path,
    *,
    answers_only: bool,
) -> None:
    """Whether the submit has arrived or not: it is sent again over a new connection, and runs once."""
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))
    with Client(proxy.endpoint, timeout_s=20) as client:
        assert client.submit("work:add", 1, 2).result(20) == 3
        before = sum(client.status().jobs.values())
        proxy.silence(answers_only=answers_only)
        began = time.monotonic()
        job = client.submit("work:append", str(mark), "once")
        job.result(20)
        assert time.monotonic() - began < SILENT_WITHIN_S
        assert sum(client.status().jobs.values()) == before + 1
    assert len(lines(mark)) == 1


def test_the_asynchronous_client_notices_silence_too(
    far: Elsewhere, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the same time."""
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))

    async def work() -> None:
        async with jobd.AsyncClient(proxy.endpoint, timeout_s=20) as client:
            assert await client.submit("work:add", 1, 2).result(20) == 3
            proxy.silence(answers_only=True)
            began = time.monotonic()
            assert await client.submit("work:add", 3, 4).result(20) == 7
            assert time.monotonic() - began < SILENT_WITHIN_S

    asyncio.run(work())


def test_the_daemon_forgets_a_client_that_is_silent(
    far: Elsewhere, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream whose consumer is gone waits for another one."""
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))
    with far.daemon.client() as local, Client(proxy.endpoint, timeout_s=20) as client:
        stream = iter(client.options(bound=10).submit("far:count", 10_000))
        assert next(stream) == 0
        number = next(iter(local.find(Selector(last=1)))).id
        proxy.silence(answers_only=False)
        assert sum(1 for _ in local.attach(number)) > 9_000


def test_a_daemon_that_comes_back_is_found_again(
    make_daemon: Callable[..., DaemonUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over the local socket: what was not answered is asked again."""
    daemon = make_daemon()
    far = Elsewhere(daemon, laptop="")
    monkeypatch.setenv("JOBD_KEY", far.key("laptop"))
    with Client(far.endpoint, timeout_s=20) as client:
        assert client.submit("math:factorial", 3).result(20) == 6
        daemon.kill()
        daemon.start()
        assert client.submit("math:factorial", 4).result(20) == 24
        client.stop(drain_s=1.0, timeout=20)
    assert daemon.wait() == 0


def test_strangers_over_tcp_are_hung_up_on(far: Elsewhere) -> None:
    """Who does not shake hands keeps no file for long, and others are served meanwhile."""
    client = far.daemon.client()

    def files() -> int:
        return len(os.listdir(f"/proc/{far.daemon.pid}/fd"))

    eventually(lambda: all(worker.state == "idle" for worker in client.status().workers))
    before = files()  # those of the workers included
    strangers = [socket.create_connection(("127.0.0.1", far.port)) for _ in range(50)]
    eventually(lambda: files() >= before + 50)
    assert client.submit("work:add", 1, 2).result(20) == 3
    eventually(lambda: files() <= before + 2)
    for stranger in strangers:
        stranger.close()


# --- ssh


@pytest.fixture
def by_ssh(far: Elsewhere, tmp_path: Path) -> dict[str, Any]:
    """Return the environment of a client whose ``ssh`` runs the command here."""
    for name, script in {
        "ssh": '[ "$1" = -T ] || exit 2\nwhile [ "$1" != -- ]; do shift; done\n'
        'if [ "$2" = nowhere ]; then echo "ssh: no route to nowhere" >&2; exit 255; fi\n'
        f'unset JOBD_SOCKET; export PATH="{tmp_path}:$PATH"; shift 2; exec "$@"',
        "jobd": f'exec {sys.executable} -P -m jobd "$@"',
    }.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        path.chmod(0o755)
    del far
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOBD_SOCKET": "ssh://host"}


def test_a_job_by_way_of_ssh(far: Elsewhere, by_ssh: dict[str, Any]) -> None:
    """No key, no port, no other setting."""
    ran = far.daemon.cli("submit", "--wait", "math:factorial", "20", **by_ssh)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2432902008176640000\n", "")


def test_large_payloads_by_way_of_ssh(
    far: Elsewhere, by_ssh: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go through the wire too; what ssh was started for ends with the client."""
    for name, value in (far.daemon.environ | by_ssh).items():
        monkeypatch.setenv(name, value)
    with Client("ssh://host", timeout_s=20) as client:
        assert client.welcome.place is None
        array = np.arange(200_000)
        assert (client.submit("far:double", array).result(20) == array * 2).all()
        assert list(client.submit("far:count", 100)) == list(range(100))
        process = client._transport._process  # type: ignore[attr-defined]  # an SshChannel
    eventually(lambda: process.poll() is not None)


def test_what_ssh_says_is_told(far: Elsewhere, by_ssh: dict[str, Any], tmp_path: Path) -> None:
    """It knows best why it did not get there."""
    ran = far.daemon.cli("ls", **by_ssh | {"JOBD_SOCKET": "ssh://nowhere"})
    assert ran.returncode == 69
    assert "ssh: no route to nowhere" in ran.stderr
    ran = far.daemon.cli("ls", **by_ssh | {"JOBD_STATE_DIR": str(tmp_path / "none")})
    assert ran.returncode == 69
    assert "no daemon at" in ran.stderr
