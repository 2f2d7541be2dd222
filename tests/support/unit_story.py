"""Run in a real systemd (run-in-systemd.sh), as root: the shipped unit, installed and used.

``unit_story.py CHAPTER`` installs jobd as docs/systemd.md says and lives through one chapter.
It exits with 77, and a reason, if the user jobd cannot reach the programs that are to run.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir

from harness import eventually

from jobd.client import Client

ROOT = Path(__file__).parents[2]
UNITS = Path("/etc/systemd/system")
DROP_INS = UNITS / "jobd.service.d"
WORK = Path("/var/lib/jobd/work")
SOCKET = "/run/jobd/client.sock"
NOBODY = 65534
LOG = Path("/run/jobd.log")
JOBD = "/opt/jobd/bin/jobd"


def run(
    *words: str, user: str | int | None = None, code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command; it must end with this exit code (None: any)."""
    done = subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
        env=os.environ | {"JOBD_SOCKET": SOCKET},
    )
    assert code in (None, done.returncode), f"{words}: {done}"
    return done


def systemctl(*words: str, code: int | None = 0) -> None:
    """Tell the service manager something."""
    run("systemctl", *words, code=code)


def unit(name: str) -> str:
    """Return a property of the unit."""
    return run("systemctl", "show", "--value", "--property", name, "jobd").stdout.strip()


def main_pid() -> int:
    """Return the daemon's pid."""
    return int(unit("MainPID"))


def processes() -> list[int]:
    """Return the pids of all processes of the user jobd."""
    uid = pwd.getpwnam("jobd").pw_uid
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
    return found


# -- as docs/systemd.md tells it -------------------------------------------------------


def install() -> None:
    """Do what the document says, with a link to the tests' environment for a new one."""
    assert Path("/run/outside").is_dir(), "only for run-in-systemd.sh: this changes the machine"
    make_reachable(ROOT, Path(sys.prefix), Path(sys.base_prefix))
    run(
        *("useradd", "--system", "--home-dir", "/var/lib/jobd"),
        *("--shell", "/usr/sbin/nologin", "jobd"),
    )
    Path("/opt").mkdir(exist_ok=True)
    Path("/opt/jobd").symlink_to(sys.prefix)
    if run(JOBD, "--version", user="jobd", code=None).returncode:
        print("other users cannot run what is installed here", file=sys.stderr)
        sys.exit(77)
    shutil.copy(ROOT / "systemd" / "jobd.service", UNITS)
    configure("[daemon]", "drain_s = 0.2")
    drop_in("log", f"StandardError=append:{LOG}")


def make_reachable(*directories: Path) -> None:
    """Let other users through to these directories; it is only the overlay that changes."""
    for directory in directories:
        for parent in directory.resolve().parents:
            with contextlib.suppress(PermissionError, OSError):
                parent.chmod(stat.S_IMODE(parent.stat().st_mode) | 0o111)


def configure(*lines: str) -> None:
    """Write /etc/jobd/jobd.toml: one worker, patience with a busy machine, and these lines."""
    common = ("[jobs]", "check_timeout_s = 60", "[pool]", "workers = 1")
    Path("/etc/jobd").mkdir(exist_ok=True)
    Path("/etc/jobd/jobd.toml").write_text("\n".join((*common, *lines)) + "\n", encoding="ascii")


def drop_in(name: str, *lines: str) -> None:
    """Add to the unit's [Service]."""
    DROP_INS.mkdir(exist_ok=True)
    text = "\n".join(("[Service]", *lines)) + "\n"
    (DROP_INS / f"{name}.conf").write_text(text, encoding="ascii")
    systemctl("daemon-reload")


def add_modules() -> None:
    """Put the tests' jobs where the unit's workers look for modules."""
    for module in (ROOT / "tests" / "support" / "jobs").glob("*.py"):
        shutil.copy(module, WORK)
        (WORK / module.name).chmod(0o644)


@contextlib.contextmanager
def started() -> Iterator[Client]:
    """Start the unit and connect to it."""
    systemctl("start", "jobd")
    add_modules()
    with Client(SOCKET) as client:
        yield client


# -- the chapters ----------------------------------------------------------------------


def started_and_used() -> None:
    """`systemctl start` returns once jobd serves, and only root and jobd may use it."""
    systemctl("enable", "jobd")
    with started() as client:
        assert unit("ActiveState") == "active"
        assert unit("StatusText") == "running"
        uid = pwd.getpwnam("jobd").pw_uid
        for directory in ("/var/lib/jobd", "/run/jobd"):
            found = Path(directory).stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (uid, 0o700)
        assert client.welcome.state_dir == "/var/lib/jobd"
        assert stat.S_IMODE(Path("/var/lib/jobd/jobd.db").stat().st_mode) == 0o600
        assert client.submit("os:umask", 0o022).result(20) == 0o022
        assert client.submit("work:add", 41).result(20) == 42
        assert client.submit("os:getcwd").result(20) == str(WORK)
        assert client.submit("os:getuid").result(20) == uid
        hidden = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
        environ = client.submit("os:environ.copy").result(20)
        assert not hidden & environ.keys()
        assert environ["JOBD_SOCKET"] == SOCKET  # a job may submit
    assert run(JOBD, "submit", "--wait", "math:factorial", "5").stdout == "120\n"
    assert run(JOBD, "submit", "--wait", "math:factorial", "5", user="jobd").stdout == "120\n"
    run(JOBD, "ls", user=NOBODY, code=77)


def delegated() -> None:
    """The unit's cgroup is jobd's to divide: the daemon is in one part, a restricted job in another."""
    with started() as client:
        base = Path("/sys/fs/cgroup/system.slice/jobd.service")
        assert client.submit("limits:group").result(20) == "/system.slice/jobd.service/daemon"
        limited = client.options(nice=5).submit("limits:group")
        assert limited.result(20).startswith("/system.slice/jobd.service/jobd-")
        gate = WORK / "gate"
        restricted = client.options(nice=5, timeout=0.5)
        stuck = restricted.submit("limits:run_away", str(WORK / "mark"), str(gate))
        client.wait([stuck.id], 20)
        eventually(lambda: [child.name for child in base.glob("*/")] == ["daemon"])
        systemctl("reload", "jobd")  # /bin/kill cannot be put where the daemon was
        assert client.submit("work:add", 41).result(20) == 42
    assert f"limits of jobs: cgroups in {base}" in LOG.read_text(encoding="utf-8")
    systemctl("restart", "jobd")
    with Client(SOCKET) as client:
        assert client.submit("limits:group").result(20) == "/system.slice/jobd.service/daemon"
    systemctl("stop", "jobd")
    assert processes() == []
    assert not base.exists()
    drop_in("alone", "Delegate=no")
    with started() as client:
        assert (
            client.options(nice=5).submit("limits:group").result(20) == "/system.slice/jobd.service"
        )
    assert "is not delegated to this daemon" in LOG.read_text(encoding="utf-8")


def reloaded() -> None:
    """`systemctl reload` replaces the workers, not the daemon."""
    with started() as client:
        daemon, worker = main_pid(), client.submit("os:getpid").result(20)
        systemctl("reload", "jobd")
        eventually(lambda: client.submit("os:getpid").result(20) != worker)
        eventually(lambda: unit("SubState") == "running")
        assert main_pid() == daemon
        assert unit("NRestarts") == "0"


def killed() -> None:
    """A daemon that is killed comes back by itself, with every job that it had acknowledged."""
    with started() as client:
        mark, gate = WORK / "mark", WORK / "gate"
        running = client.submit("work:mark_and_wait", str(mark), str(gate))
        queued = client.submit("work:append", str(WORK / "queued"), "once")
        assert queued.id == running.id + 1  # both are acknowledged
        eventually(mark.exists)
        daemon = main_pid()
        systemctl("kill", "--signal=KILL", "--kill-who=main", "jobd")
        eventually(lambda: unit("NRestarts") == "1" and unit("ActiveState") == "active")
        assert main_pid() not in (0, daemon)
        gate.touch()
        assert running.result(20) == "through"
        assert queued.result(20) is None
        assert (WORK / "queued").read_text(encoding="ascii") == "once\n"


def stopped() -> None:
    """`systemctl stop` puts back what runs and leaves nothing behind but the state directory.

    It takes longer than the unit allows: a daemon that drains asks for the time it needs.
    """
    drop_in("stop", "TimeoutStopSec=1s")
    configure("[daemon]", "drain_s = 1.3")
    with started() as client:
        mark = WORK / "mark"
        command = f"setsid sleep 600 & touch {mark}; sleep 600"
        number = client.submit("subprocess:call", ["sh", "-c", command]).id
        eventually(mark.exists)
    systemctl("stop", "jobd")
    assert (unit("ActiveState"), unit("Result")) == ("inactive", "success")
    assert unit("ExecMainStatus") == "0"
    assert processes() == []
    assert not Path("/run/jobd").exists()
    mark.unlink()
    with started():
        eventually(mark.exists)  # it was put back, and runs again
        shown = json.loads(run(JOBD, "show", str(number), "--json").stdout)
        assert shown["state"] == "running"


def misconfigured() -> None:
    """What no restart can mend is not tried again."""
    configure("wrokers = 1")
    systemctl("start", "jobd", code=1)
    assert (unit("ActiveState"), unit("ExecMainStatus")) == ("failed", "78")
    assert unit("NRestarts") == "0"
    assert "did you mean pool.workers?" in LOG.read_text(encoding="utf-8")


def stuck() -> None:
    """A daemon that does not get on is ended and started again, and tells where it was."""
    drop_in("watchdog", "WatchdogSec=500ms", "TimeoutAbortSec=5s")
    with started() as client:
        deferred = client.submit("work:add", 41)
        assert deferred.result(20) == 42
        os.kill(main_pid(), signal.SIGSTOP)
        eventually(lambda: unit("NRestarts") == "1" and unit("ActiveState") == "active")
        assert client.result(deferred.id) == 42
    assert "Fatal Python error: Aborted" in LOG.read_text(encoding="utf-8")


def unhindered() -> None:
    """A job can do what any program of its user can do, save becoming somebody else."""
    setuid_id = Path(shutil.copy("/usr/bin/id", "/srv/setuid-id"))
    setuid_id.chmod(0o4755)
    given = [f"{where}/given" for where in (gettempdir(), "/srv", "/home", "/var/opt")]
    with started() as client:
        for directory in given:
            Path(directory).mkdir(parents=True)
            shutil.chown(directory, "jobd")
        words = [str(setuid_id), *given]
        program = [f"{sys.prefix}/bin/python", str(WORK / "abilities.py")]
        outside = json.loads(run(*program, *words, user="jobd").stdout)
        in_job = client.submit("abilities:tried_out", *words).result(30)
    assert {name for name in outside if outside[name] != in_job[name]} == {"become root"}
    assert sum(in_job.values()) > len(in_job) / 2  # it was not the trying that failed


def strict() -> None:
    """With the stricter drop-in jobd itself works on, and a job does what it is left."""
    Path("/home/alice").mkdir(parents=True)
    shutil.copy(ROOT / "systemd" / "strict.conf", DROP_INS)
    # Whoever runs this may have Python, or these sources, at home; /opt would be in sight.
    programs = f"BindReadOnlyPaths={ROOT} {sys.prefix} {sys.base_prefix}"
    drop_in("test", "ProtectHome=tmpfs", programs)
    with started() as client:
        assert client.submit("work:add", 41).result(20) == 42
        assert client.submit("os.path:exists", "/home/alice").result(20) is False
        assert client.submit("os.path:exists", "/proc/1").result(20) is False
        client.submit("work:append", str(WORK / "mark"), "here").result(20)
    systemctl("stop", "jobd")
    assert unit("Result") == "success"
    assert processes() == []


CHAPTERS: dict[str, Callable[[], None]] = {
    chapter.__name__: chapter
    for chapter in (
        started_and_used,
        delegated,
        reloaded,
        killed,
        stopped,
        misconfigured,
        stuck,
        unhindered,
        strict,
    )
}


def main() -> None:
    """Live through a chapter; when it fails, show what the daemon and the manager say."""
    os.umask(0o022)
    install()
    began = time.monotonic()
    try:
        CHAPTERS[sys.argv[1]]()
    except BaseException:
        print(run("systemctl", "status", "--no-pager", "jobd", code=None).stdout)
        print(LOG.read_text(encoding="utf-8", errors="replace") if LOG.exists() else "no log")
        raise
    finally:
        systemctl("kill", "--signal=KILL", "jobd", code=None)  # else the shutdown waits for it
    print(f"{time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
