"""``jobd start``: the daemon."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from jobd.cli import settle
from jobd.cli.options import option, verb
from jobd.cli.session import Session
from jobd.cli.text import counted, home_shortened, one_line
from jobd.model.durations import parse_size
from jobd.model.errors import DaemonUnreachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobd.config import Loaded

TIMEOUT_S = 30.0

EXAMPLES = """
jobd start                              in the background, for the functions here
jobd start --path src --path tools      for those in these directories
jobd start --workers 8
jobd start --foreground                 for a supervisor such as systemd
jobd start --listen tcp://10.0.0.5:9750 --allow laptop.pub   for clients elsewhere too
jobd start --state-dir /tmp/other       one more daemon, beside the first
"""


@verb(examples=EXAMPLES)
@option("--foreground", is_flag=True, help="Stay in the foreground, and log to stderr.")
@option(
    "--path",
    "paths",
    multiple=True,
    metavar="DIR",
    allow_from_autoenv=False,
    help="Where workers look for modules first; repeatable (JOBD_PATH).  [default: here]",
)
@option(
    "--workers",
    metavar="N",
    allow_from_autoenv=False,
    help="How many jobs run at once; 0: one for each core (JOBD_POOL_WORKERS).",
)
@option(
    "--durability",
    metavar="full|normal|off",
    allow_from_autoenv=False,
    help="What an acknowledged job survives (JOBD_STORE_DURABILITY).",
)
@option(
    "--max-jobs-per-worker",
    metavar="N",
    allow_from_autoenv=False,
    help="Replace a worker after so many jobs; 0: never (JOBD_POOL_MAX_JOBS_PER_WORKER).",
)
@option(
    "--max-worker-rss",
    metavar="SIZE",
    allow_from_autoenv=False,
    help="Replace a worker that has more memory than that, such as 2G (JOBD_POOL_MAX_WORKER_RSS).",
)
@option(
    "--listen",
    metavar="tcp://HOST:PORT",
    allow_from_autoenv=False,
    help="Where clients on other machines reach it (JOBD_REMOTE_LISTEN).",
)
@option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="FILE.pub[=RIGHT+...]",
    allow_from_autoenv=False,
    help="The key of one of them, repeatable; rights: read, submit, control (JOBD_REMOTE_ALLOW).",
)
@option("--ready-fd", type=int, hidden=True, allow_from_autoenv=False, help="Told once it answers.")
@option(
    "--owner",
    metavar="FD:DIR",
    hidden=True,
    allow_from_autoenv=False,
    help="End with the process of this pidfd, and remove the directory.",
)
def command(  # noqa: PLR0913  # an argument for each option
    session: Session,
    *,
    foreground: bool,
    paths: tuple[str, ...],
    workers: str | None,
    durability: str | None,
    max_jobs_per_worker: str | None,
    max_worker_rss: str | None,
    listen: str | None,
    allowed: tuple[str, ...],
    ready_fd: int | None,
    owner: str | None,
) -> int:
    """Start the daemon, and return once it answers.

    A daemon is its state directory: there is one for each. It runs on in the
    background and logs to daemon.log there. Its workers find the modules of the
    current directory, or of those that --path names.
    """
    if ready_fd is not None:
        session.json = False  # whoever starts us reads our words from the log
    flags = {
        "path": list(paths) or None,
        "pool.workers": workers,
        "store.durability": durability,
        "pool.max_jobs_per_worker": max_jobs_per_worker,
        "pool.max_worker_rss": _bytes(max_worker_rss),
        "remote.listen": listen,
        "remote.allow": list(allowed) or None,
    }
    loaded = session.load(flags)
    if "://" in loaded.settings.socket:
        raise UsageError(
            f"a daemon's own socket is a path, not {loaded.settings.socket}",
            "unset JOBD_SOCKET; --listen is for clients on other machines",
        )
    if loaded.origins["path"] == "default":
        loaded = session.load(flags | {"path": [os.getcwd()]})
    if foreground:
        return _run(loaded, ready_fd, owner)
    own = {
        "--workers": workers,
        "--durability": durability,
        "--max-jobs-per-worker": max_jobs_per_worker,
        "--max-worker-rss": max_worker_rss,
        "--listen": listen,
    }
    words = _words(session, loaded, own)
    for entry in loaded.settings.remote.allow if allowed else ():
        words += ["--allow", entry]
    return _start(session, loaded, words)


def _bytes(size: str | None) -> int | None:
    """Return a size that was said; raises UsageError with the flag's name."""
    try:
        return None if size is None else parse_size(size)
    except UsageError as error:
        raise UsageError(f"--max-worker-rss: {error.message}", error.hint) from None


def _run(loaded: Loaded, ready_fd: int | None, owner: str | None) -> NoReturn:
    """Be the daemon."""
    from jobd.daemon.launch import run_foreground  # noqa: PLC0415  # only `start` needs the daemon
    from jobd.daemon.owner import Owner  # noqa: PLC0415  # as above

    settle()
    # It ends as Python programs do, whatever threads and handlers it has.
    sys.exit(run_foreground(loaded, ready_fd, Owner.parse(owner) if owner else None))


def _start(session: Session, loaded: Loaded, words: list[str]) -> int:
    """Start a daemon with these words, and tell about it."""
    from jobd.daemon.launch import LOG_NAME, start_in_background  # noqa: PLC0415  # as above

    start_in_background(loaded, words, TIMEOUT_S)
    try:
        with session.connect() as client:
            welcome = client.welcome
    except DaemonUnreachable:  # 'start one with jobd start' would be no help
        log = os.path.join(loaded.settings.state_dir, LOG_NAME)
        raise DaemonUnreachable(
            "the daemon ended as soon as it had started", f"see {log}"
        ) from None
    if session.json:
        session.write_json(
            {
                "schema": "jobd.start/1",
                "version": welcome.version,
                "pid": welcome.pid,
                "workers": welcome.workers,
                "state_dir": welcome.state_dir,
                "socket": loaded.settings.socket,
            }
        )
    elif not session.quiet:
        where = one_line(home_shortened(welcome.state_dir, os.environ.get("HOME", "")))
        session.write(
            f"jobd {welcome.version} is running: pid {welcome.pid}, "
            f"{counted(welcome.workers, 'worker')}, state in {where}"
        )
    return 0


def _words(session: Session, loaded: Loaded, own: Mapping[str, str | None]) -> list[str]:
    """Return the options for the daemon's own command line: these ``own`` ones among them.

    What depends on the environment or the directory is spelt out, so that it cannot
    come out differently there.
    """
    settings = loaded.settings
    words = ["--state-dir", settings.state_dir, "--socket", settings.socket]
    for directory in settings.path:
        words += ["--path", directory]
    for name, value in {"--config": session.config, **own}.items():
        if value is not None:
            words += [name, value]
    return words
