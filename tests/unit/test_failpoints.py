"""Failpoints: named places at which a test makes a process fail, and nothing anywhere else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobd import failpoints
from jobd.failpoints import NAMES, STREAM_NAMES, WORKER_NAMES, _Armed

PACKAGE = Path(failpoints.__file__).parent


def run(text: str, *hits: str) -> subprocess.CompletedProcess[str]:
    """Run a process with JOBD_FAILPOINT set that passes these failpoints one after the other."""
    script = (
        "import sys\nfrom jobd.failpoints import hit\n"
        "for name in sys.argv[1:]:\n    print(name, flush=True)\n    hit(name)\nprint('survived')"
    )
    return subprocess.run(
        [sys.executable, "-c", script, *hits],
        env=os.environ | {"JOBD_FAILPOINT": text},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


class TestNames:
    """The lists that the tests walk."""

    def test_every_name_stands_in_the_code_and_the_other_way_round(self) -> None:
        """A failpoint that is named is somewhere, and one that is somewhere is named, in the right list."""
        found: dict[str, set[str]] = {}
        for source in PACKAGE.rglob("*.py"):
            for name in re.findall(r'\bhit\("([^"]+)"\)', source.read_text(encoding="utf-8")):
                found.setdefault(name, set()).add(source.parent.name)
        assert set(found) == {*NAMES, *WORKER_NAMES, *STREAM_NAMES}
        in_workers = {name for name, where in found.items() if where == {"pool"}}
        assert in_workers - set(STREAM_NAMES) == set(WORKER_NAMES)

    def test_no_name_is_there_twice(self) -> None:
        """Daemon and workers inherit one variable: the name alone tells who is to fail."""
        every = NAMES + WORKER_NAMES + STREAM_NAMES
        assert len(set(every)) == len(every)


class TestUnarmed:
    """Without the variable."""

    def test_nothing_happens(self) -> None:
        """Not even for a name that does not exist."""
        done = run("", "submit.received", "nonsense")
        assert (done.returncode, done.stdout.split()[-1]) == (0, "survived")


class TestArmed:
    """With it."""

    @pytest.mark.parametrize(
        ("action", "code"), [("kill", -signal.SIGKILL), ("exit", 70), ("raise", 1)]
    )
    def test_the_process_fails_at_the_place(self, action: str, code: int) -> None:
        """At its name, as asked for; others are passed."""
        done = run(f"batch.taken:{action}", "submit.received", "batch.taken", "batch.written")
        assert (done.returncode, done.stdout.split()) == (code, ["submit.received", "batch.taken"])
        assert ("OSError: failpoint batch.taken" in done.stderr) == (action == "raise")

    def test_it_fails_at_the_nth_time(self) -> None:
        """Not before."""
        done = run("batch.taken:exit:3", *["batch.taken"] * 5)
        assert (done.returncode, done.stdout.count("batch.taken")) == (70, 3)

    def test_it_fails_once(self) -> None:
        """A process that survives, because it only raised, or was stopped, passes from then on."""
        hit = _Armed("batch.taken:raise:2")
        hit("batch.taken")
        with pytest.raises(OSError, match=r"failpoint batch\.taken"):
            hit("batch.taken")
        hit("batch.taken")

    def test_a_process_is_stopped(self) -> None:
        """It can go on later, as after a long pause of the machine."""
        script = "from jobd.failpoints import hit; hit('batch.taken')"
        with subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"JOBD_FAILPOINT": "batch.taken:stop"}
        ) as process:
            stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            process.send_signal(signal.SIGCONT)
            assert stopped is not None
            assert stopped.si_status == signal.SIGSTOP
            assert process.wait(20) == 0

    @pytest.mark.parametrize(
        "text",
        ["nonsense:kill", "batch.taken", "batch.taken:burn", ":", "batch.taken:kill:", "batch.taken:kill:x",
         "batch.taken:kill:0", "batch.taken:kill:-1", "batch.taken:kill:1:"],
    )  # fmt: skip
    def test_what_makes_no_sense_is_refused_at_the_start(self, text: str) -> None:
        """A test that misspells a failpoint must not pass because nothing failed."""
        done = run(text)
        assert done.returncode == 1
        assert done.stderr == f"JOBD_FAILPOINT={text}: no such failpoint, action or number\n"
