"""Jobs that go wrong, each in its own way; imported by workers only.

As in a user's module, what is needed is imported where it is needed: a worker
that has run none of these jobs has loaded nothing for them.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

# --- ends of a function


class Odd(BaseException):
    """An exception that no ``except Exception`` catches."""


class Mute(Exception):
    """An exception whose texts raise, and which can neither be pickled nor copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")


class Last(Exception):
    """An exception that fights back when it is thrown away."""

    def __del__(self) -> None:
        raise RuntimeError("not even gone")


def leave(how: object = None) -> NoReturn:
    """Call sys.exit."""
    sys.exit(how)  # type: ignore[arg-type]  # whatever a user passes


def interrupt() -> NoReturn:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def close_generator() -> NoReturn:
    """Raise what ends a generator."""
    raise GeneratorExit


def raise_odd() -> NoReturn:
    """Raise an exception that is no Exception."""
    raise Odd("odd")


def raise_locked() -> NoReturn:
    """Raise an exception that cannot be pickled."""
    error = ValueError("has a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]  # anybody may do so
    raise error


def raise_mute() -> NoReturn:
    """Raise an exception without any text."""
    raise Mute


def raise_last() -> NoReturn:
    """Raise an exception whose finaliser raises."""
    raise Last("last")


def recurse(depth: int = 0) -> int:
    """Call itself without end."""
    return recurse(depth + 1) + 1


# --- ends of a process


def end_process(code: int) -> NoReturn:
    """End the worker behind its back."""
    os._exit(code)


def write_and_end(text: str) -> NoReturn:
    """Write to stdout, unflushed, and to stderr by fd; then end the worker."""
    os.write(2, text.encode())
    os._exit(3)


def segfault() -> None:
    """Read from address 0."""
    import ctypes  # noqa: PLC0415  # as the module says

    ctypes.string_at(0)


def abort() -> NoReturn:
    """Abort, as an assertion in C does."""
    os.abort()


def kill_self(number: int) -> None:
    """Send a signal to the own process, and wait for it."""
    os.kill(os.getpid(), number)
    time.sleep(30)


def close_files() -> None:
    """Close every file the worker has, its sockets included."""
    os.closerange(0, 256)


def spoil_files() -> None:
    """Put /dev/null in the place of every file the worker has."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(256):
        if fd != null:
            try:
                os.fstat(fd)
            except OSError:
                continue
            os.dup2(null, fd)


def crash_while(mark: str, text: str) -> str:
    """End the worker in the first attempt, and say something in each."""
    with open(mark, "a", encoding="ascii") as file:
        file.write(".")
    attempt = os.path.getsize(mark)
    print(f"{text} {attempt}", flush=True)
    if attempt == 1:
        os._exit(9)
    return text


# --- results


def give_lock() -> object:
    """Return what pickle refuses, deep within."""
    return {"a": [threading.Lock()]}


def give_file() -> object:
    """Return an open file."""
    return open(os.devnull, "rb")  # that is the fault


def give_generators() -> list[Iterator[int]]:
    """Return generators within something: by itself one would be a stream."""
    return [(number for number in range(3))]


def give_deep(depth: int) -> object:
    """Return a list in a list in a list."""
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def give_bytes(size: int) -> bytes:
    """Return so many bytes."""
    return b"x" * size


def give_text(size: int) -> str:
    """Return so many characters."""
    return "x" * size


def give_set() -> set[int]:
    """Return what JSON cannot say."""
    return {1}


# --- what can be called


async def coroutine(value: int) -> int:
    """Return after a turn of the event loop."""
    import asyncio  # noqa: PLC0415  # as the module says

    await asyncio.sleep(0)
    return value + 1


class Thing:
    """A class with every kind of method."""

    def __init__(self, value: int = 7) -> None:
        self.value = value

    def __reduce__(self) -> tuple[type[Thing], tuple[int]]:
        return Thing, (self.value,)

    def __repr__(self) -> str:
        return f"Thing({self.value})"

    def __call__(self, value: int) -> int:
        """Add."""
        return self.value + value

    def instance_method(self) -> int:
        """Return the value; needs an instance."""
        return self.value

    @classmethod
    def class_method(cls, value: int) -> str:
        """Return a name and a number."""
        return f"{cls.__name__} {value}"

    @staticmethod
    def static_method(value: int) -> int:
        """Return it doubled."""
        return value * 2


thing = Thing(40)
partial = functools.partial(Thing(1), 41)
not_callable = 42


# --- output


def say(text: str, end: str = "\n") -> None:
    """Print."""
    print(text, end=end)


def print_much(size: int) -> None:
    """Print so many bytes."""
    block = "." * 1023 + "\n"
    for _ in range(size // 1024):
        sys.stdout.write(block)


def print_much_and_end(size: int) -> NoReturn:
    """Print so many bytes; then end the worker."""
    print_much(size)
    sys.stdout.flush()
    os.write(1, b"the last line\n")
    os._exit(5)


def print_much_and_wait(size: int, mark: str, gate: str) -> None:
    """Print so many bytes, say so, and wait for the gate."""
    print_much(size)
    sys.stdout.flush()
    wait_at(mark, gate)


def write_odd(data: bytes) -> None:
    """Write bytes that are no text, and text that is no UTF-8."""
    os.write(1, data)
    print("\ud800", end="")


def write_everywhere() -> None:
    """Write by Python, by C, by a child, and by a grandchild, in this order."""
    import ctypes  # noqa: PLC0415  # as the module says
    import subprocess  # noqa: PLC0415  # as the module says

    print("python")
    sys.stdout.flush()
    libc = ctypes.CDLL(None)
    libc.puts(b"c")
    libc.fflush(None)
    subprocess.run(["sh", "-c", "echo child; (echo grandchild >&2)"], check=True)


def replace_stdout(how: str) -> None:
    """Leave a stdout behind that nobody can print to."""
    print("kept", end="")
    if how == "none":
        sys.stdout = None
    elif how == "closed":
        sys.stdout.close()
    elif how == "detached":
        sys.stdout.detach()  # type: ignore[union-attr]  # it is a text file
    else:
        sys.stdout = sys.stderr = Stubborn()


def go_silent() -> None:
    """Put /dev/null in the place of stdout and stderr."""
    print("before", flush=True)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    print("after")


class Stubborn:
    """A file that cannot be flushed."""

    def flush(self) -> NoReturn:
        """Refuse, with an exception of no common kind."""
        raise Odd("no flush")


# --- processes


def double_fork() -> int:
    """Start a process that leaves session, group and parent behind; return its pid."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(write, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    os.waitpid(child, 0)
    pid = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    return pid


def stray_and_wait(mark: str, gate: str) -> None:
    """Start such a process, write its pid to ``mark``, and wait for the gate."""
    wait_at(mark, gate, str(double_fork()))


def stray_and_end(mark: str) -> NoReturn:
    """Start such a process, write its pid to ``mark``, and end the worker."""
    with open(mark, "a", encoding="ascii") as file:
        file.write(f"{double_fork()}\n")
    os._exit(4)


def leave_a_thread_that_forks(mark: str, gate: str) -> None:
    """Leave a thread behind that starts such a process once the gate is open, and writes its pid."""

    def fork_late() -> None:
        wait_unless_open(gate)
        wait_at(mark, gate, str(double_fork()))

    threading.Thread(target=fork_late, daemon=True).start()


def fork_many(number: int) -> None:
    """Fork so many processes, which end at once, and wait for none of them."""
    for _ in range(number):
        if os.fork() == 0:
            os._exit(0)


def ignore_sigterm(mark: str, gate: str) -> None:
    """Ignore SIGTERM, in a way that the worker cannot see, and wait for the gate."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_at(mark, gate)


def catch_everything(mark: str, gate: str) -> str:
    """Catch whatever stops it, and go on."""
    while True:
        try:
            wait_at(mark, gate)
        except BaseException:  # noqa: BLE001, S112  # that is the fault
            continue
        return "through"


def clean_up(mark: str, gate: str) -> None:
    """Wait for the gate; append to ``mark`` when stopped."""
    try:
        wait_at(mark, gate)
    finally:
        with open(mark, "a", encoding="ascii") as file:
            file.write("cleaned up\n")


def block_signals(mark: str, gate: str) -> None:
    """Block every signal that can be blocked, and wait for the gate."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    wait_at(mark, gate)


def wait_at(mark: str, gate: str, text: str = "") -> str:
    """Append a line (the own pid) to ``mark``, then wait until the file ``gate`` exists."""
    with open(mark, "a", encoding="ascii") as file:
        file.write(f"{text or os.getpid()}\n")
    while not os.path.exists(gate):
        time.sleep(0.005)
    return "through"


def wait_unless_open(gate: str) -> None:
    """Wait until the file ``gate`` exists; one look when it does."""
    while not os.path.exists(gate):
        time.sleep(0.005)


# --- surroundings


def move(directory: str) -> None:
    """Change what a process has but one of: its directory and its umask."""
    os.chdir(directory)
    os.umask(0o777)


def surroundings() -> dict[str, object]:
    """Return what a job finds."""
    import resource  # noqa: PLC0415  # as the module says

    umask = os.umask(0)
    os.umask(umask)
    return {
        "cwd": os.getcwd(),
        "umask": umask,
        "path": sys.path,
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "pid": os.getpid(),
        "sigterm": signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN),
        "safe_path": sys.flags.safe_path,
    }


def open_many(number: int) -> int:
    """Open files until there are no more; return how many it got."""
    files = []
    try:
        for _ in range(number):
            files.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401  # what is open counts
    except OSError:
        pass
    for fd in files:
        os.close(fd)
    return len(files)
