"""One daemon for each state directory, and directories that nobody else can write to."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobd.daemon.lock import Lock, private_directory
from jobd.model.errors import AlreadyRunning, ConfigError, Denied

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where the lock is to be."""
    return str(tmp_path / "lock")


class TestLock:
    """The lock on a state directory."""

    def test_it_is_held_once(self, path: str) -> None:
        """The second one is told by whom, since when, and what to do; exit code 75."""
        first = Lock(path, "the state directory /s")
        with pytest.raises(AlreadyRunning) as caught:
            Lock(path, "the state directory /s")
        first.release()
        assert caught.value.code == 75
        said = rf"the state directory /s is held by pid {os.getpid()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        assert re.fullmatch(said, caught.value.message)
        assert "jobd stop" in caught.value.hint

    def test_the_refused_one_leaves_the_holder_alone(self, path: str) -> None:
        """What the lock says stays, and so does the lock."""
        first = Lock(path, "it")
        before = Path(path).read_bytes()
        for _ in range(2):
            with pytest.raises(AlreadyRunning):
                Lock(path, "it")
        assert Path(path).read_bytes() == before
        first.release()

    def test_it_can_be_taken_when_it_was_released(self, path: str) -> None:
        """The file stays, and names the last holder only."""
        Path(path).write_bytes(b"pid 12345678901234567890 since long ago, and more that is longer")
        for _ in range(2):
            Lock(path, "it").release()
        assert re.fullmatch(rf"pid {os.getpid()} since .{{19}}\n", Path(path).read_text())

    def test_it_ends_with_its_process(self, path: str) -> None:
        """However that ends; a stale pid in the file keeps nobody out."""
        script = (
            "import sys, time; from jobd.daemon.lock import Lock\n"
            "held = Lock(sys.argv[1], 'it'); print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, path], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            with pytest.raises(AlreadyRunning, match=f"pid {child.pid}"):
                Lock(path, "it")
            child.send_signal(signal.SIGKILL)
            child.wait(20)
        Lock(path, "it").release()

    def test_it_is_not_inherited(self, path: str) -> None:
        """A child that lives longer than the daemon does not hold it."""
        held = Lock(path, "it")
        with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
            held.release()
            Lock(path, "it").release()
            child.kill()

    def test_only_the_owner_can_read_it(self, path: str) -> None:
        """Its mode is 0600 whatever the umask."""
        before = os.umask(0)
        Lock(path, "it").release()
        os.umask(before)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_a_full_disk_does_not_keep_it_from_being_held(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who holds it, but not since when, the kernel tells then."""

        def fail(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", fail)
        held = Lock(path, "it")
        with pytest.raises(AlreadyRunning, match=rf"it is held by pid {os.getpid()} \("):
            Lock(path, "it")
        held.release()

    def test_a_directory_is_held_whatever_becomes_of_the_file(
        self, path: str, tmp_path: Path
    ) -> None:
        """Who removes the file does not make room for a second daemon."""
        first = Lock(path, "it", str(tmp_path))
        os.unlink(path)
        for _ in range(2):
            with pytest.raises(AlreadyRunning, match=rf"it is held by pid {os.getpid()} \("):
                Lock(path, "it", str(tmp_path))
        first.release()
        Lock(path, "it", str(tmp_path)).release()

    def test_it_does_not_follow_a_link(self, path: str, tmp_path: Path) -> None:
        """What somebody else has put there to be overwritten is not touched."""
        target = tmp_path / "precious"
        target.write_text("precious")
        os.symlink(target, path)
        with pytest.raises(ConfigError, match=f"cannot lock {path}: ") as caught:
            Lock(path, "it")
        assert caught.value.code == 78
        assert target.read_text() == "precious"

    def test_a_directory_in_the_way(self, path: str) -> None:
        """A sentence, and exit code 78."""
        os.mkdir(path)
        with pytest.raises(ConfigError, match=f"cannot lock {path}: Is a directory"):
            Lock(path, "it")

    def test_no_permission(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sentence, and exit code 77."""

        def deny(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", deny)
        with pytest.raises(Denied, match=f"cannot lock {path}: Permission denied"):
            Lock(path, "it")


class TestPrivateDirectory:
    """A directory that only its owner can write to."""

    def test_it_is_made(self, tmp_path: Path) -> None:
        """With those above it, and closed to all others."""
        path = tmp_path / "a" / "b"
        private_directory(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
    def test_one_that_others_cannot_write_to_will_do(self, mode: int, tmp_path: Path) -> None:
        """It is left as it is: that others may look inside is its owner's decision."""
        tmp_path.chmod(mode)
        private_directory(str(tmp_path))
        assert stat.S_IMODE(tmp_path.stat().st_mode) == mode

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
    def test_one_that_others_can_write_to_is_refused(self, mode: int, tmp_path: Path) -> None:
        """With the command that mends it."""
        tmp_path.chmod(mode)
        with pytest.raises(ConfigError) as caught:
            private_directory(str(tmp_path))
        assert (caught.value.code, caught.value.hint) == (78, f"chmod 700 {tmp_path}")
        assert caught.value.message == f"others may write to {tmp_path}"

    def test_one_below_a_directory_that_all_can_write_to_is_refused(self, tmp_path: Path) -> None:
        """They could put another in its place; but not where only the owner of a name may change it."""
        above = tmp_path / "open"
        above.mkdir()
        above.chmod(0o777)
        with pytest.raises(ConfigError, match=f"others may write to {above}, ") as caught:
            private_directory(str(above / "a" / "b"))
        assert f"chmod o-w {above}" in caught.value.hint
        above.chmod(0o1777)
        private_directory(str(above / "a" / "b"))

    def test_one_of_somebody_else_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Even for root, who could use it: its owner could do so, too."""
        if os.geteuid() == 0:
            os.chown(tmp_path, NOBODY, NOBODY)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        with pytest.raises(ConfigError, match=r"belongs to uid \d+"):
            private_directory(str(tmp_path))

    @pytest.mark.parametrize("below", ["", "/state"])
    def test_a_file_in_the_way(self, below: str, tmp_path: Path) -> None:
        """A sentence, and the file stays."""
        path = tmp_path / "file"
        path.touch()
        with pytest.raises(ConfigError, match=f"cannot make {path}") as caught:
            private_directory(f"{path}{below}")
        assert caught.value.code == 78
        assert path.is_file()

    def test_a_link_to_a_directory_of_ones_own(self, tmp_path: Path) -> None:
        """It is the directory that counts."""
        target, link = tmp_path / "target", tmp_path / "link"
        target.mkdir(mode=0o700)
        link.symlink_to(target)
        private_directory(str(link))
        target.chmod(0o777)
        with pytest.raises(ConfigError, match="others may write"):
            private_directory(str(link))

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link in another's name")
    def test_a_link_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        """Whoever owns the link decides where it leads."""
        target, link = tmp_path / "target", tmp_path / "link"
        target.mkdir(mode=0o700)
        link.symlink_to(target)
        os.lchown(link, NOBODY, NOBODY)
        with pytest.raises(ConfigError, match=f"the link {link} belongs to uid {NOBODY}"):
            private_directory(str(link))

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        """Nothing is made where it points."""
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "nothing")
        with pytest.raises(ConfigError, match=f"cannot make {link}"):
            private_directory(str(link))
        assert not (tmp_path / "nothing").exists()

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sentence, and exit code 77."""

        def deny(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "makedirs", deny)
        with pytest.raises(Denied) as caught:
            private_directory(str(tmp_path / "a"))
        assert caught.value.code == 77
        assert caught.value.message == f"cannot make {tmp_path / 'a'}: Permission denied"
