"""What the processes of the pool have to know, and what daemon and zygote say to each other."""

from __future__ import annotations

import msgspec

from jobd.model.blob import Place
from jobd.pool.cgroup import Group


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to know; travels to the zygote as JSON."""

    boot: str
    socket: str
    client_socket: str
    boards_dir: str
    logs_dir: str
    path: list[str]
    preload: list[str]
    orphan_s: float
    preload_timeout_s: float = 600.0
    max_payload_bytes: int
    place: Place
    max_output_bytes: int
    nofile_soft: int
    allow: list[str] = []
    """The patterns of ``security.allow``; none: everything may run."""
    umask: int
    threads: int = 0
    """How many threads the libraries of a worker may take; 0: as many as they like."""
    thread_variables: list[str] = []
    """The environment variables that the zygote has set for that."""
    private: bool = False
    """The daemon belongs to one process: without it, nothing goes on."""
    initializer: str = ""
    """The file with the call that each worker makes first, pickled; "": none."""
    authkey: str = ""
    """The file with the key by which its owner's processes of ``multiprocessing`` know each other; "": none."""
    outputs: tuple[int, int] | None = None
    """The fds, inherited, where jobs write; None: into the worker's log."""
    cgroup: Group | None = None
    """Where workers that run restricted jobs have their leaves."""


class Spawn(msgspec.Struct, tag="spawn"):
    """Fork a worker, or the checker."""

    uid: str
    checker: bool = False


class Spawned(msgspec.Struct, tag="spawned"):
    """A process was forked; its pidfd travels with this packet."""

    uid: str
    pid: int


class NotSpawned(msgspec.Struct, tag="not_spawned"):
    """The kernel refused to fork."""

    uid: str
    why: str


class Exited(msgspec.Struct, tag="exited"):
    """A worker has ended and was reaped; ``status`` as from waitpid."""

    uid: str
    pid: int
    status: int
    max_rss_bytes: int
    cpu_s: float
    out_of_memory: bool = False
    """Its cgroup says that the kernel has killed there."""


class Failed(msgspec.Struct, tag="failed"):
    """A preload module cannot be imported."""

    why: str


class Warned(msgspec.Struct, tag="warned"):
    """What preload modules have done that does not end well in forked workers."""

    sentences: list[str]


class Preloading(msgspec.Struct, tag="preloading"):
    """This preload module is being imported."""

    module: str


class Up(msgspec.Struct, tag="up"):
    """All is imported; whatever is asked for is answered from now on."""


Word = Spawned | NotSpawned | Exited | Failed | Preloading | Up | Warned

decode_word = msgspec.msgpack.Decoder(Word).decode
