"""Power cuts: an ext4 in a file is shut down under a daemon, without its journal's last words.

All processes of the daemon are stopped, since without power nothing runs on, and
``FS_IOC_SHUTDOWN`` drops whatever is not on the disk; then the processes are killed, the
file system is mounted again, which plays its journal, and another daemon starts on what is
there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from random import Random

from harness import DaemonUnderTest, eventually
from oracle import Counts, Oracle

FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
IMAGE_MIB = 64
LONGEST_S = 0.6
ENDS_WITHIN_S = 60.0


def cut(rng: Random) -> Counts:
    """Let a daemon work, cut its power at a random moment, and judge what the next one has.

    Raises:
        AssertionError: something that was acknowledged is not as it was told.
        OSError, CalledProcessError: this machine lets nobody mount a file.
    """
    daemon = DaemonUnderTest(pool__workers=2, jobs__max_crashes=50).write_jobs()
    image, disk = daemon.root / "disk.img", daemon.state_dir
    try:
        with image.open("wb") as file:
            file.truncate(IMAGE_MIB << 20)
        _run("mkfs.ext4", "-q", "-F", str(image))
        disk.mkdir(mode=0o700)
        _run("mount", "-o", "loop", str(image), str(disk))
        disk.chmod(0o700)
        oracle = Oracle(daemon)
        _work(daemon.start(), oracle, rng)
        _shut_down(daemon)
        oracle.fault()  # it has been listening all the while: what was told too late counts, too
        eventually(daemon._kill_all)
        daemon.kill()
        eventually(lambda: _is_unmounted(disk))  # who was killed may still be on his way out
        eventually(lambda: _is_mounted_anew(image, disk))
        daemon.start()
        return oracle.judge(within_s=ENDS_WITHIN_S)
    finally:
        daemon.close()
        subprocess.run(["umount", "--lazy", str(disk)], check=False, stderr=subprocess.DEVNULL)
        _remove(daemon)


def _work(daemon: DaemonUnderTest, oracle: Oracle, rng: Random) -> None:
    """Submit jobs for a while, and listen to what is acknowledged."""
    client = daemon.client()
    until_s = time.monotonic() + 0.05 + rng.random() * LONGEST_S
    while time.monotonic() < until_s:
        deferreds = oracle.submit(client, count=rng.choice((1, 1, 10, 100)))
        if rng.random() < 0.5:
            assert deferreds[0].id
        oracle.listen()


def _shut_down(daemon: DaemonUnderTest) -> None:
    for pid in daemon.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    fd = os.open(daemon.state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


def _is_unmounted(disk: Path) -> bool:
    done = subprocess.run(["umount", str(disk)], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0


def _is_mounted_anew(image: Path, disk: Path) -> bool:
    """Mount the image; return whether it is not the file system that was shut down, on its way out."""
    _run("mount", "-o", "loop", str(image), str(disk))
    try:
        (disk / "probe").touch()
    except OSError:
        _run("umount", str(disk))
        return False
    return True


def _remove(daemon: DaemonUnderTest) -> None:
    subprocess.run(["rm", "-rf", str(daemon.root)], check=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
