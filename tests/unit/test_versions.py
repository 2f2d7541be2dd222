"""The versions of the packages that a pickle names."""

from __future__ import annotations

import datetime as dt
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from jobd import payload
from jobd.blobs import Blobs, Spot
from jobd.model.blob import Place, argument_name
from jobd.model.errors import PayloadUnreadable
from jobd.versions import versions_after, versions_in, written


@pytest.fixture
def frames() -> Iterator[Any]:
    """Return a package whose class is in a module of it, and can be pickled while it is of version 3."""
    package, inner = ModuleType("framelib"), ModuleType("framelib.core.frame")

    class Frame:
        def __init__(self, data: object) -> None:
            self.data = data

        def __setstate__(self, state: dict[str, object]) -> None:
            if package.__version__ != "3.0.1":
                raise AttributeError("'str' object has no attribute 'na_value'")
            self.__dict__ |= state

    Frame.__module__, Frame.__qualname__ = "framelib.core.frame", "Frame"
    package.__version__ = "3.0.1"  # type: ignore[attr-defined]  # a module has any
    inner.Frame = Frame  # type: ignore[attr-defined]
    names = {"framelib": package, "framelib.core": ModuleType("c"), "framelib.core.frame": inner}
    sys.modules |= names
    yield SimpleFrames(package, Frame)
    for name in names:
        del sys.modules[name]


class SimpleFrames:
    """The package, its class."""

    def __init__(self, package: Any, kind: Any) -> None:
        self.package, self.kind = package, kind


@pytest.fixture
def spot(tmp_path: Any) -> Spot:
    """Return where a large payload goes."""
    place = Place(
        "", str(tmp_path), "disk", spill=False, sync=False, max_bytes=2**30, row_bytes=2**20
    )
    return Spot(Blobs(place), argument_name, bytes(16), 0)


def test_each_package_that_is_named_has_its_version(frames: Any) -> None:
    """By its first name, wherever in it the class is; the standard library has none that matters."""
    value = [frames.kind(np.zeros(3)), dt.date(2026, 1, 1), frames.kind(None)]
    found = versions_in(pickle.dumps(value, 5))
    assert found == {"framelib": "3.0.1", "numpy": np.__version__}


@pytest.mark.parametrize("value", [(1, 2), {"a": {1}}, b"\x94\x93" * 9, "x\x94\x93", dt.date.max])
def test_what_names_no_package_has_none_and_stays_as_it_is(value: object) -> None:
    """Bytes that look like a name, too."""
    data = pickle.dumps(value, 5)
    assert versions_in(data) == {}
    assert written({}) == b""
    assert versions_after(data) == {}


def test_versions_follow_on_a_pickle_and_do_not_disturb_it(frames: Any) -> None:
    """Unpickling ends at the dot."""
    data = pickle.dumps(frames.kind(7), 5)
    data += written(versions_in(data))
    assert versions_after(data) == {"framelib": "3.0.1"}
    assert payload.unpickle(data).data == 7


@pytest.mark.parametrize("count", [3, 100_000], ids=["in the row", "in a file"])
def test_the_package_that_made_it_is_named_and_not_that_which_owns_the_memory(
    frames: Any, spot: Spot, count: int
) -> None:
    """Both versions; numpy has the same here and there."""
    data = payload.encode(frames.kind(np.zeros(count)), spot=spot)
    assert (data[:1] == b"F") == (count > 3)
    frames.package.__version__ = "2.2.3"
    with pytest.raises(PayloadUnreadable) as caught:
        payload.decode(data, spot.blobs)
    assert "pickled with framelib 3.0.1, and here is framelib 2.2.3" in caught.value.message
    assert "numpy" not in caught.value.message
    assert "same versions" in caught.value.hint


def test_where_no_version_differs_the_advice_is_another(frames: Any) -> None:
    """To install the same again would not help."""
    frames.package.__version__ = "2.2.3"
    data = payload.encode(frames.kind(1))
    with pytest.raises(PayloadUnreadable) as caught:
        payload.decode(data)
    assert "pickled with" not in caught.value.message
    assert caught.value.hint == "does its class survive pickle.loads(pickle.dumps(value))?"
