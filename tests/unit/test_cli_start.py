"""``jobd start``, of a daemon that does not stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobd.cli.commands import start
from jobd.cli.session import Session
from jobd.daemon import launch
from jobd.model.errors import DaemonUnreachable


def test_a_daemon_that_ends_as_soon_as_it_runs_is_looked_for_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start one, as anybody else is told who reaches none, would be no help."""
    monkeypatch.setattr(launch, "start_in_background", lambda *_: 4242)
    session = Session()
    session.state_dir = str(tmp_path)
    with pytest.raises(DaemonUnreachable, match="as soon as it had started") as caught:
        start._start(session, session.load(), [])
    assert caught.value.hint == f"see {tmp_path}/daemon.log"
