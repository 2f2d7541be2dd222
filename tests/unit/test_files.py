"""Which file system holds a directory: on some of them SQLite cannot keep a promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobd.store import files
from jobd.store.files import filesystem_of

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
tmpfs /run tmpfs rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/anna/disk xfs rw 0 0
tmpfs /home/anna/disk tmpfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
host:/ /srv/data fuse.sshfs rw 0 0
"""


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``MOUNTS`` mounted."""
    monkeypatch.setattr(files, "_mounts", lambda: MOUNTS)
    monkeypatch.setattr(Path, "resolve", lambda self: self)


@pytest.mark.usefixtures("mounts")
class TestFilesystemOf:
    """The mount that holds a directory is the longest one that leads to it; of several there, the last."""

    @pytest.mark.parametrize(
        ("directory", "kind"),
        [
            ("/", "ext4"),
            ("/var/lib/jobd", "ext4"),
            ("/run", "tmpfs"),
            ("/run/jobd", "tmpfs"),
            ("/runner", "ext4"),
            ("/home", "nfs4"),
            ("/home/anna", "nfs4"),
            ("/home/anna/disk", "tmpfs"),
            ("/home/anna/disk/a/b", "tmpfs"),
            ("/home/anna/diskette", "nfs4"),
            ("/mnt/my share/jobd", "cifs"),
            ("/srv/data/jobd", "fuse.sshfs"),
        ],
    )
    def test_the_longest_mount_counts(self, directory: str, kind: str) -> None:
        """A name that only begins like a mount's is not below it; a blank is written as its code."""
        assert filesystem_of(Path(directory)) == kind


def test_a_link_leads_to_where_the_files_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the directory behind it that is judged."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    monkeypatch.setattr(
        files, "_mounts", lambda: f"a / ext4 rw 0 0\nb {target.resolve()} nfs rw 0 0\n"
    )
    assert filesystem_of(link) == "nfs"
    assert filesystem_of(tmp_path) == "ext4"


def test_without_proc_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is refused either."""
    monkeypatch.setattr(files, "MOUNTS", Path("/nowhere/mounts"))
    assert filesystem_of(Path("/")) == ""


def test_this_machine() -> None:
    """The real list is read, too."""
    assert filesystem_of(Path("/proc/self")) == "proc"
