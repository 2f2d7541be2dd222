"""Large values in files: what goes there, what stays in the row, and what comes back."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobd import payload
from jobd.blobs import MAP_BYTES, Blobs, Spot
from jobd.inputs import JobResult
from jobd.model.blob import Place, result_name
from jobd.model.errors import AlreadyTaken, PayloadLost, PayloadTooLarge, PayloadUnreadable
from jobd.payload import FILE_BYTES

SIZES = (FILE_BYTES, MAP_BYTES)
"""Bytes of the smallest array of each kind: one that is read, one that is mapped."""


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """Return a directory for files."""
    return Blobs(Place(str(tmp_path), str(tmp_path), "memory", True, False, 2**30, 2**20))


@pytest.fixture
def spot(blobs: Blobs) -> Spot:
    """Return a name for one file."""
    return Spot(blobs, result_name, 1, 1, "ab")


def names(spot: Spot) -> list[str]:
    """Return the files that there are."""
    return os.listdir(spot.blobs.place.memory)


@pytest.mark.parametrize("size", SIZES)
def test_a_large_array_comes_back_from_a_file_and_may_be_changed(spot: Spot, size: int) -> None:
    """Each consumer has it to himself: the others, and the file, stay as they were."""
    array = np.arange(size // 8, dtype=np.int64)
    data = payload.encode({"a": array, "n": 1}, spot=spot)
    assert len(data) < 200
    (name,) = names(spot)
    stored = Path(spot.blobs.place.memory, name).read_bytes()
    one, other = (payload.decode(data, spot.blobs) for _ in range(2))
    assert one["n"] == 1
    assert (one["a"] == array).all()
    one["a"] *= -1
    one["a"].sort()
    assert (one["a"] == np.sort(-array)).all()
    assert (other["a"] == array).all()
    assert (payload.decode(data, spot.blobs)["a"] == array).all()
    assert Path(spot.blobs.place.memory, name).read_bytes() == stored


@pytest.mark.parametrize("size", SIZES)
def test_what_was_read_only_stays_so(spot: Spot, size: int) -> None:
    """An array with ``writeable=False``, and bytes: as after any pickle."""
    array, frozen = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    frozen.flags.writeable = False
    value = [array, frozen, pickle.PickleBuffer(bytes(size)), pickle.PickleBuffer(bytearray(size))]
    found = payload.decode(payload.encode(value, spot=spot), spot.blobs)
    assert [view.flags.writeable for view in found[:2]] == [True, False]
    assert [memoryview(view).readonly for view in found[2:]] == [True, False]
    with pytest.raises(ValueError, match="read-only"):
        found[1][0] = 1


@pytest.mark.parametrize("number", range(5))
def test_code_that_writes_to_what_it_is_given_runs_as_at_home(spot: Spot, number: int) -> None:
    """Arguments that libraries change in place, in Python and in C, some without a look at the flags."""
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.linalg")
    sklearn = pytest.importorskip("sklearn.linear_model")
    neural, cluster = (
        pytest.importorskip(f"sklearn.{name}") for name in ("neural_network", "cluster")
    )

    def travelled(value: Any) -> Any:
        data = payload.encode(value, spot=spot)
        assert data[:1] != b"p", "it was to be in a file"
        return payload.decode(data, spot.blobs)

    rng = np.random.default_rng(1)
    if number == 0:
        few = rng.random((4, 60_000)), np.array([0, 1, 0, 1])
        model = travelled(sklearn.SGDClassifier(max_iter=2, tol=None).fit(*few))
        before = model.coef_.copy()
        assert (model.partial_fit(*few).coef_ != before).any()
    elif number == 1:
        matrix, right = np.eye(300) * 2, np.ones(300)
        found = linalg.solve(travelled(matrix.T).T, right, overwrite_a=True)
        assert (found == 0.5).all()
        assert linalg.inv(travelled(np.asfortranarray(matrix)), overwrite_a=True)[0, 0] == 0.5
    elif number == 2:
        columns = np.arange(20_000, dtype=np.int32)[::-1].copy()
        csr = sparse.csr_matrix((np.ones(20_000), columns, [0, 20_000]), shape=(1, 20_000))
        csr.has_sorted_indices = False
        csr = travelled(csr)
        csr.sort_indices()
        assert csr.indices[:2].tolist() == [0, 1]
    elif number == 3:
        points, classes = rng.random((50, 400)), np.arange(50) % 2
        net = neural.MLPClassifier((100,), max_iter=1, random_state=0)
        net = travelled(net.partial_fit(points, classes, classes=[0, 1]))
        assert net.partial_fit(points, classes).t_ == 100
    else:
        points = travelled(rng.random((1_000, 50)))
        assert cluster.MiniBatchKMeans(3, n_init=1, random_state=0).fit(points).labels_.size == 1000


def test_a_frame_may_be_changed_in_place(spot: Spot) -> None:
    """Pandas's blocks are such arrays."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.zeros(100_000), "b": np.zeros(100_000)})
    data = payload.encode(frame, spot=spot)
    one, other = payload.decode(data, spot.blobs), payload.decode(data, spot.blobs)
    one.iloc[0, 0] = 1
    assert [one.iloc[0, 0], other.iloc[0, 0]] == [1, 0]


def test_a_compiled_function_with_a_signature_takes_it(spot: Spot) -> None:
    """Numba's plain array types are those that may be written to."""
    numba = pytest.importorskip("numba")

    @numba.njit("void(float64[::1])")  # type: ignore[untyped-decorator]  # numba has no types
    def doubled(array: Any) -> None:
        for n in range(len(array)):
            array[n] *= 2

    array = payload.decode(payload.encode(np.ones(100_000), spot=spot), spot.blobs)
    doubled(array)
    assert (array == 2).all()


def test_a_small_array_stays_in_the_row_and_is_the_consumers_own(spot: Spot) -> None:
    """As large ones are."""
    data = payload.encode(np.zeros(1000), spot=spot)
    assert data[:1] == b"p"
    payload.decode(data)[0] = 1
    assert names(spot) == []


def test_small_blocks_stay_in_the_pickle(spot: Spot) -> None:
    """A thousand little arrays are one file with one pickle in it."""
    value = [np.full(10, n) for n in range(1000)]
    data = payload.encode(value, spot=spot)
    content = spot.blobs.read(data)
    assert content.buffers == []
    assert all((a == b).all() for a, b in zip(payload.decode(data, spot.blobs), value, strict=True))


@pytest.mark.parametrize(
    "value",
    [
        b"x" * FILE_BYTES,
        bytearray(FILE_BYTES),
        [(n,) for n in range(20_000)],
        {1: "y" * FILE_BYTES},
    ],
)
def test_large_pickles_without_buffers_go_there_too(spot: Spot, value: object) -> None:
    """Plain bytes, or a large graph of small objects."""
    data = payload.encode(value, spot=spot)
    assert data[:1] == b"F"
    assert payload.decode(data, spot.blobs) == value


def test_text_that_people_can_read_stays_in_the_row(spot: Spot) -> None:
    """JSON has the store's promise, and needs no file to be shown."""
    value = ["x" * 100] * 1000
    data = payload.encode(value, spot=spot)
    assert data[:1] == b"j"
    assert names(spot) == []


def test_what_is_too_long_for_a_row_goes_into_a_file(spot: Spot) -> None:
    """A list of a million numbers is no error."""
    value = list(range(200_000))
    data = payload.encode(value, spot=spot)
    assert data[:1] == b"F"
    assert payload.decode(data, spot.blobs) == value


def test_what_is_asked_for_as_json_is_never_in_a_file(spot: Spot) -> None:
    """The command line shows it, and cannot unpickle."""
    assert payload.encode(list(range(200_000)), spot=spot, lossy=True)[:1] == b"j"
    assert payload.encode((1, 2), spot=spot, lossy=True) == b"J[1,2]"


def test_without_a_place_everything_is_in_line() -> None:
    """And then an array is writable, as ever."""
    array = np.zeros(100_000)
    found = payload.decode(payload.encode(array))
    found[0] = 1
    assert found.shape == array.shape


def test_a_file_is_shown_without_being_opened(spot: Spot) -> None:
    """What people see of it stands in the reference."""
    data = payload.encode(np.zeros(100_000), spot=spot, shown_as=lambda _: "zeros")
    Path(spot.blobs.place.memory, spot.name).unlink()
    assert payload.shown(data) == ("zeros", False)


class Heavy:
    """More to keep than to say."""

    __struct_fields__ = ("a",)

    def __init__(self) -> None:
        self.a = 1
        self.b = bytes(FILE_BYTES)

    def __fspath__(self) -> str:
        return "heavy"


def test_json_is_shown_of_a_file_too(spot: Spot) -> None:
    """It stands in the reference, as a repr does."""
    data = payload.encode([Heavy()], spot=spot, shown_as=repr)
    assert data[:1] == b"F"
    Path(spot.blobs.place.memory, spot.name).unlink()
    assert payload.shown(data) == ('["heavy"]', True)


@pytest.mark.parametrize("order", ["C", "F"])
def test_layout_and_dtype_are_kept(spot: Spot, order: Any) -> None:
    """Fortran order, structured types, and views that are not contiguous."""
    array = np.asarray(np.random.default_rng(1).random((300, 200)), order=order)
    kind = np.dtype([("a", "<i4"), ("b", "<f8")])
    records = np.zeros(5000, kind)
    value = (array, records, array[::2, ::3])
    found = payload.decode(payload.encode(value, spot=spot), spot.blobs)
    for before, after in zip(value, found, strict=True):
        assert after.dtype == before.dtype
        assert (after == before).all()
    assert found[0].flags["F_CONTIGUOUS"] == (order == "F")


def test_one_array_twice_in_a_value_is_stored_once(spot: Spot) -> None:
    """And is one array again."""
    array = np.zeros(100_000)
    data = payload.encode([array, array], spot=spot)
    assert len(spot.blobs.read(data).buffers) == 1
    found = payload.decode(data, spot.blobs)
    assert found[0] is found[1]


def test_arguments_travel_in_files_too(spot: Spot) -> None:
    """By position and by name."""
    array = np.arange(100_000)
    data, inputs = payload.encode_call((array, 1), {"k": array}, spot=spot)
    assert inputs == []
    args, kwargs, as_json = payload.decode_call(data, (), spot.blobs)
    assert (args[0] == array).all()
    assert args[1] == 1
    assert kwargs["k"] is args[0]
    assert not as_json


def test_a_deferred_passed_on_moves_a_reference(spot: Spot) -> None:
    """The value of a job that is another one's argument is mapped where it is, whole or in part."""
    array = np.arange(100_000)
    value = payload.encode({"rows": array}, spot=spot)
    call, inputs = payload.encode_call((JobResult(7), JobResult(7, ("rows",)), (1, 2)), {})
    assert (inputs, call[:1]) == ([7], b"p")
    (whole, part, plain), _, _ = payload.decode_call(call, [value], spot.blobs)
    assert part is whole["rows"]
    assert plain == (1, 2)
    assert (part == array).all()
    assert part.base is not None
    part[0] = 7
    (again, _, _), _, _ = payload.decode_call(call, [value], spot.blobs)
    assert again["rows"][0] == 0
    assert len(names(spot)) == 1


def test_a_deferred_beside_a_large_array_travels_in_the_file(spot: Spot) -> None:
    """The file's pickle refers to the inputs as any other does."""
    data, inputs = payload.encode_call((np.zeros(100_000), JobResult(7)), {}, spot=spot)
    assert (data[:1], inputs) == (b"F", [7])
    args, _, _ = payload.decode_call(data, [b"j5"], spot.blobs)
    assert args[1] == 5
    with pytest.raises(AlreadyTaken):
        payload.decode_call(data, [b"!taken 7"], spot.blobs)


def test_a_lost_file_and_a_missing_place_are_said(spot: Spot) -> None:
    """Two sentences, neither of them a traceback of ours."""
    data = payload.encode(np.zeros(100_000), spot=spot)
    spot.blobs.remove(data)
    with pytest.raises(PayloadLost):
        payload.decode(data, spot.blobs)
    with pytest.raises(PayloadUnreadable):
        payload.decode(data)


def test_the_limit_of_a_row_holds_for_pickles_as_well(tmp_path: Path) -> None:
    """With a low limit smaller values go into files; none is refused that a file can hold."""
    place = Place(str(tmp_path), str(tmp_path), "memory", True, False, 20_000, 1024)
    spot = Spot(Blobs(place), result_name, 1, 1, "ab")
    assert payload.encode(b"x" * 2000, spot=spot)[:1] == b"F"
    with pytest.raises(PayloadTooLarge):
        payload.encode(b"x" * 30_000, spot=spot)


# -- versions -----------------------------------------------------------------


class Block:
    """A block of memory, as an array library has them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return _rebuild, (pickle.PickleBuffer(self.data),)


def _rebuild(_data: memoryview) -> Block:
    raise ModuleNotFoundError("No module named 'numpy._core'", name="numpy._core")


def test_a_skew_of_versions_is_named(spot: Spot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which module, which versions, and what to do."""
    value = [np.zeros(100_000), Block(b"x" * 10_000)]
    monkeypatch.setattr(np, "__version__", "2.4.6")
    data = payload.encode(value, spot=spot)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    with pytest.raises(PayloadUnreadable) as caught:
        payload.decode(data, spot.blobs)
    assert "No module named 'numpy" in caught.value.message
    assert "pickled with numpy 2.4.6, and here is numpy 1.26.4" in caught.value.message
    assert "same versions" in caught.value.hint


def test_a_pickle_in_the_row_that_cannot_be_read_is_a_clear_error_too() -> None:
    """Without versions, for nobody wrote them down."""
    data = payload.encode(Block(b"x"))
    with pytest.raises(PayloadUnreadable, match="ModuleNotFoundError: No module named"):
        payload.decode(data)


def test_the_same_version_is_not_called_a_skew(spot: Spot) -> None:
    """A failure has other reasons too."""
    data = payload.encode([np.zeros(100_000), Block(b"x" * 10_000)], spot=spot)
    with pytest.raises(PayloadUnreadable) as caught:
        payload.decode(data, spot.blobs)
    assert "pickled with" not in caught.value.message


def test_a_module_that_is_not_there_at_all_is_named(spot: Spot) -> None:
    """The reader may have no numpy."""
    data = payload.encode([np.zeros(100_000), Block(b"x" * 10_000)], spot=spot)
    content = spot.blobs.read(data)
    altered = spot.blobs.write(
        spot.name, [content.payload], content.buffers, versions={"nopy": "1.0"}
    )
    with pytest.raises(PayloadUnreadable, match=r"nopy 1.0, and here is nopy nowhere"):
        payload.decode(altered, spot.blobs)
