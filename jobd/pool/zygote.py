"""The zygote: imports what every worker needs, once, and forks workers from there.

It starts no thread, because only a single-threaded process can fork safely; of what
preload modules have started, it tells (``jobd.pool.lingering``).  It is the workers'
parent: it reaps them, tells the daemon how they ended, and, as a subreaper, inherits and
kills whatever they leave behind.
When the daemon dies it forks no more, but goes on until its last worker has ended.

Talk with the daemon: one packet each way, msgpack, over a SOCK_SEQPACKET pair.
"""

from __future__ import annotations

import importlib
import os
import resource
import select
import signal
import socket
import sys
import traceback
import warnings

import msgspec

from jobd.pool import linux, share
from jobd.pool.cgroup import Leaf, Remains
from jobd.pool.forked import differ
from jobd.pool.kinship import belong_to
from jobd.pool.lingering import Lingering
from jobd.pool.protocol import (
    Exited,
    Failed,
    NotSpawned,
    Preloading,
    Settings,
    Spawn,
    Spawned,
    Up,
    Warned,
    Word,
)

CLEARS_S = 1.0
"""How long the resource trackers of a dead worker may take."""

_decode_spawn = msgspec.msgpack.Decoder(Spawn).decode
_encode = msgspec.msgpack.encode


class Zygote:
    """The whole of the zygote process."""

    def __init__(self, channel: socket.socket, settings_json: bytes) -> None:
        # Imported here, after sys.path is in order, and only once for all workers.
        from jobd.pool import checker, worker  # noqa: PLC0415

        importlib.import_module("jobd.plain")  # which is imported late, and needed by many results
        self._channel = channel
        self._settings = msgspec.json.decode(settings_json, type=Settings)
        self._worker, self._checker = worker, checker
        self._uids: dict[int, str] = {}
        self._checkers: set[int] = set()
        self._lingering = Lingering()
        self._leaves: list[Leaf] = []
        """Those that could not be removed yet."""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Fork on demand until the daemon is gone and the last worker has ended."""
        linux.become_subreaper()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(
                number, signal.SIG_IGN
            )  # the daemon decides when we end, by closing the channel
        if not self._preload():
            return
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        has_daemon = True
        while has_daemon or self._uids:
            for fd, _ in poll.poll(self._lingering.wait_ms()):
                if fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                elif not self._listen():
                    has_daemon = False
                    poll.unregister(self._channel)
                    self._end_useless()
            self._reap()
            if found := self._lingering.sentences():
                self._say(Warned(found))

    def _preload(self) -> bool:
        names = share.set_variables(self._settings.threads)
        self._settings = msgspec.structs.replace(self._settings, thread_variables=names)
        sys.path[0:0] = self._settings.path
        if self._settings.authkey:
            belong_to(self._settings.authkey)
        pid = os.getpid()
        for name in self._settings.preload:
            self._say(Preloading(name))
            try:
                importlib.import_module(name)
            except BaseException as error:  # noqa: BLE001  # any end of an import is one answer
                why = traceback.format_exception_only(error)[-1].strip()
                self._say(Failed(f"cannot import the preload module {name}: {why}"))
                return False
            finally:
                if os.getpid() != pid:  # the module has forked, and this is no zygote
                    os._exit(0)
            self._lingering.imported(name)
        self._say(Up())
        return True

    def _say(self, word: Word, fds: tuple[int, ...] = ()) -> bool:
        """Tell the daemon; return whether it is there (the next read of the channel says so too)."""
        try:
            socket.send_fds(self._channel, [_encode(word)], fds)
        except OSError:
            return False
        return True

    def _listen(self) -> bool:
        """Take one packet from the daemon; return whether it is still there."""
        try:
            packet = self._channel.recv(65536)
        except OSError:
            return False
        if packet:
            self._fork(_decode_spawn(packet))
        return bool(packet)

    def _fork(self, order: Spawn) -> None:
        try:
            with warnings.catch_warnings():
                # From 3.12 on, Python warns of any thread; we do so of those that do harm.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
        except OSError as error:
            self._say(NotSpawned(order.uid, f"cannot fork a worker: {error.strerror}"))
            return
        if pid == 0:
            self._become(order)
        self._lingering.forked()
        self._uids[pid] = order.uid
        if order.checker:
            self._checkers.add(pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            linux.signal_quietly(pid, signal.SIGKILL)  # nobody could watch it
            self._say(NotSpawned(order.uid, f"cannot watch a worker: {error.strerror}"))
            return
        if not self._say(Spawned(order.uid, pid), (pidfd,)):
            linux.signal_quietly(pid, signal.SIGKILL)  # nobody has use for it
        os.close(pidfd)

    def _end_useless(self) -> None:
        """Kill the checkers, which only the daemon that is gone asked anything.

        After a private daemon no other one comes, so there the workers are as useless.
        """
        for pid in self._uids if self._settings.private else self._checkers:
            linux.signal_quietly(pid, signal.SIGKILL)

    def _become(self, order: Spawn) -> None:
        """Turn into a worker; never returns."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._channel.close()
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._settings.nofile_soft, hard))
            os.umask(self._settings.umask)
            # What was ignored would be so in every program that a job starts.
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            linux.become_subreaper()
            differ()
            if order.checker:
                self._checker.run(order.uid, self._settings)
            else:
                self._worker.Worker(order.uid, self._settings).run()
        except BaseException:  # noqa: BLE001  # a forked child must never run into the parent's code
            _print_traceback()
        finally:
            os._exit(70)

    def _reap(self) -> None:
        """Reap what has ended; a worker's group and strays go with it, before its pid can be used again."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            pid = ended.si_pid
            uid = self._uids.pop(pid, None)
            self._checkers.discard(pid)
            if uid is not None:
                self._end_group(pid)
            _, status, usage = os.wait4(pid, 0)
            if uid is not None:
                self._bury(uid, pid, status, usage)

    def _end_group(self, pid: int) -> None:
        """Kill the group of a dead worker; what tracks its shared memory may clear that away first."""
        strays = [child for child in linux.children(os.getpid()) if child not in self._uids]
        trackers = {child for child in strays if linux.is_resource_tracker(child)}
        if trackers:  # they do so when the last process is gone that could use it
            linux.kill_children({pid, *self._uids, *trackers})
            linux.await_ends(trackers, CLEARS_S)
        linux.signal_group(pid, signal.SIGKILL)

    def _bury(self, uid: str, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """Kill and reap what a worker has left behind, and tell how it ended."""
        group = self._settings.cgroup
        leaf = Leaf(group, uid) if group else None
        if leaf is not None:
            leaf.kill()  # at one stroke: whoever forks fast enough escapes from what follows
        linux.kill_children(spare=set(self._uids))
        remains = leaf.remains() if leaf is not None else Remains(False, 0)
        max_rss_bytes = remains.peak_bytes or usage.ru_maxrss * 1024
        cpu_s = usage.ru_utime + usage.ru_stime
        is_told = self._say(Exited(uid, pid, status, max_rss_bytes, cpu_s, remains.out_of_memory))
        # Without a daemon, a leaf is what tells the next one.
        if leaf is not None and (is_told or self._settings.private):
            self._leaves = [left for left in [*self._leaves, leaf] if not left.remove()]


def _print_traceback() -> None:
    try:
        traceback.print_exc()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001, S110  # the job has closed it
        pass


def main() -> None:
    """Run as ``python -P -m jobd.pool.zygote FD SETTINGS-JSON``."""
    # click would call every program that runs as a job "python -m jobd.pool.…", which it is not.
    sys.modules["__main__"].__package__ = None
    Zygote(socket.socket(fileno=int(sys.argv[1])), sys.argv[2].encode()).run()
    sys.stderr.flush()
    os._exit(0)  # without the interpreter's own way out: a preload module's thread would block it


if __name__ == "__main__":
    main()
