"""What a list of allowed functions lets pass."""

from __future__ import annotations

import pytest

from jobd import payload
from jobd.daemon.allowed import AllowList
from jobd.model.errors import NotAllowed
from jobd.model.messages import Submit


@pytest.mark.parametrize(
    ("pattern", "function"),
    [("mytasks:*", "mytasks:load"), ("mytasks:Shop.*", "mytasks:Shop.open"), ("r.*:b", "r.a.c:b")],
)
def test_what_a_pattern_matches_is_allowed(pattern: str, function: str) -> None:
    """A wildcard stands for any part of a name, and for any modules."""
    AllowList((pattern,)).refuse_foreign(submit(function))


@pytest.mark.parametrize("function", ["mytasks:os.system", "mytasks:subprocess.run", "os:system"])
def test_what_a_module_has_imported_is_not_allowed_with_it(function: str) -> None:
    """Almost every module would lead to a shell."""
    with pytest.raises(NotAllowed):
        AllowList(("mytasks:*",)).refuse_foreign(submit(function))


def submit(function: str) -> Submit:
    """Return a submit of one call without arguments."""
    return Submit(1, b"k" * 16, function, [payload.encode_call((), {}, json=True)[0]], [])
