"""Shell commands as jobs: what ``jobd run -- CMD…`` submits."""

from __future__ import annotations

import subprocess

environment: dict[str, str] | None = None
"""What the command of the job at hand has for variables; None: the worker's.  The worker sets it."""


class CommandFailed(Exception):
    """The command ended with another exit code than 0, or by a signal."""

    __module__ = "jobd"


def run(argv: list[str], cwd: str) -> int:
    """Run a command to its end, its output into the job's; return 0.

    Raises:
        CommandFailed: it ended otherwise; the message tells how.
        OSError: it cannot be started.
    """
    status = _run(argv, cwd)
    if status:
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        raise CommandFailed(f"{how} from: {' '.join(argv)}")
    return 0


def _run(argv: list[str], cwd: str) -> int:
    """As ``subprocess.run``, which would kill the command at once when the job is stopped."""
    env = None if environment is None else environment | {"PWD": cwd}
    process = subprocess.Popen(argv, cwd=cwd, env=env)
    try:
        return process.wait()
    except Exception:  # the soft limit, of which the command knows nothing
        process.kill()
        process.wait()
        raise
    except BaseException:  # a stop: the command was sent the same SIGTERM, and SIGKILL will follow
        process.wait()
        raise
