"""How many threads a worker's libraries take: whose word counts, and that a job leaves it as it was."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
from played_cgroups import PlayedCgroups

from jobd.pool import cgroup, cores
from jobd.pool.share import BY_LIBRARY, VARIABLES, limited, set_variables, unset


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return an environment in which nobody has said anything."""
    found: dict[str, str] = {"HOME": "/"}
    monkeypatch.setattr(os, "environ", found)
    return found


class Library:
    """One that is loaded, as threadpoolctl has it."""

    def __init__(self, api: str, threads: int) -> None:
        self.internal_api, self.filepath, self.num_threads = api, f"/lib/{api}", threads

    def set_num_threads(self, count: int) -> None:
        """As it says."""
        self.num_threads = count


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Library]:
    """Return the libraries that are loaded."""
    found = [Library("openblas", 8), Library("openmp", 8), Library("flexiblas", 8)]
    controller = SimpleNamespace(lib_controllers=found)
    fake = ModuleType("threadpoolctl")
    fake.ThreadpoolController = lambda: controller  # type: ignore[attr-defined]  # as far as it is used
    monkeypatch.setitem(sys.modules, "threadpoolctl", fake)
    monkeypatch.setitem(sys.modules, "numpy", ModuleType("numpy"))
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    return found


def test_every_variable_is_set_that_the_user_has_not_set(environ: dict[str, str]) -> None:
    """Also one that he has set to nothing is his."""
    environ |= {"POLARS_MAX_THREADS": "5", "MKL_NUM_THREADS": ""}
    names = set_variables(3)
    assert set(names) == set(VARIABLES) - {"POLARS_MAX_THREADS", "MKL_NUM_THREADS"}
    assert {environ[name] for name in names} == {"3"}
    assert (environ["POLARS_MAX_THREADS"], environ["MKL_NUM_THREADS"]) == ("5", "")


def test_what_the_user_says_to_openmp_holds_for_those_who_listen_there() -> None:
    """OpenBLAS's own variable would outrank it; polars has never heard of it."""
    names = unset({"OMP_NUM_THREADS": "4"})
    assert "POLARS_MAX_THREADS" in names
    assert not {*BY_LIBRARY.values(), "NUMEXPR_NUM_THREADS"} & set(names)


def test_zero_leaves_all_as_it_is(environ: dict[str, str]) -> None:
    """Nothing is set, nothing is limited."""
    assert set_variables(0) == []
    with limited(0, VARIABLES), limited(2, []):
        assert not set(environ) & set(VARIABLES)


def test_a_part_of_a_job_may_have_another_number(
    environ: dict[str, str], loaded: list[Library]
) -> None:
    """In the environment, for what is loaded inside, and in what is loaded; then all is as before."""
    environ["OMP_NUM_THREADS"] = "8"
    before = dict(environ)
    with pytest.raises(ZeroDivisionError), limited(2, BY_LIBRARY.values()):
        assert [environ[name] for name in BY_LIBRARY.values()] == ["2"] * 4
        assert [library.num_threads for library in loaded] == [2, 2, 8]
        _ = 1 / 0
    assert environ == before
    assert [library.num_threads for library in loaded] == [8, 8, 8]


def test_only_the_libraries_that_were_meant_are_told(
    environ: dict[str, str], loaded: list[Library]
) -> None:
    """The user has said how many threads OpenMP takes: that stands."""
    with limited(2, ["OPENBLAS_NUM_THREADS"]):
        assert environ["OPENBLAS_NUM_THREADS"] == "2"
        assert [library.num_threads for library in loaded] == [2, 8, 8]


def test_what_is_loaded_meanwhile_goes_back_to_the_environments_number(
    environ: dict[str, str], loaded: list[Library]
) -> None:
    """The next job in this worker finds what it would have read there."""
    environ["MKL_NUM_THREADS"] = "3"
    with limited(2, BY_LIBRARY.values()):
        loaded += [Library("mkl", 2), Library("blis", 2)]
    assert [library.num_threads for library in loaded] == [8, 8, 8, 3, 2]


def test_a_numba_that_is_imported_keeps_its_variable(
    environ: dict[str, str], loaded: list[Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles nothing any more once that has changed."""
    assert loaded
    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))
    environ["NUMBA_NUM_THREADS"] = "8"
    with limited(2, VARIABLES):
        assert (environ["NUMBA_NUM_THREADS"], environ["POLARS_MAX_THREADS"]) == ("8", "2")


def test_without_threadpoolctl_there_is_the_environment(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no dependency."""
    monkeypatch.setitem(sys.modules, "numpy", ModuleType("numpy"))
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with limited(2, ["OMP_NUM_THREADS"]):
        assert environ["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in environ


def test_cores_are_divided_among_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has one at least; a number is a number."""
    monkeypatch.setattr(cores, "usable", lambda: 8)
    assert [cores.each("auto", workers) for workers in (1, 2, 3, 8, 50)] == [8, 4, 2, 1, 1]
    assert [cores.each(number, 2) for number in (0, 1, 7)] == [0, 1, 7]


def test_a_quota_counts_as_the_cores_that_it_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest of those of the group and of all above it, rounded up; none is no limit."""
    kernel = PlayedCgroups("cpu")
    kernel.make("/cg/box")
    kernel.root.passed_on.add("cpu")
    kernel.nodes["/cg/box"].passed_on.add("cpu")
    kernel.make("/cg/box/unit")
    assert cgroup.quota("/cg/box/unit", kernel) is None
    kernel.nodes["/cg/box"].values["cpu.max"] = "150000 100000"
    kernel.nodes["/cg/box/unit"].values["cpu.max"] = "400000 100000"
    assert cgroup.quota("/cg/box/unit", kernel) == 1.5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(cgroup, "find", lambda: "/cg/box/unit")
    assert cores.usable(kernel) == 2
    kernel.nodes["/cg/box"].values["cpu.max"] = "max 100000"
    assert cores.usable(kernel) == 4

    def missing() -> str:
        raise cgroup.NoGroup("none")

    monkeypatch.setattr(cgroup, "find", missing)
    assert cores.usable(kernel) == 8
