"""A graph of jobs, as a TOML file or a dictionary says it, checked wholly before anything is sent.

    [jobs.load]
    function = "mytasks:load"
    args = ["sales.csv"]
    retries = 3

    [jobs.report]
    function = "mytasks:report"
    args = ["@job:load"]                  # what it returns; "@job:load.rows[0]": a part of that
    after_any = ["clean"]

    [jobs.clean]
    run = ["sh", "-c", "rm -f *.tmp"]     # a command
    after = ["load", 7]                   # 7: a job that is there already

The jobs are put into an order in which each follows those that it comes after; in the
message they are named by their places in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jobd.client.functions import Function
from jobd.inputs import Input, JobResult, Reference
from jobd.model.edges import OPTIONS as AFTER
from jobd.model.edges import When
from jobd.model.errors import UsageError
from jobd.model.job import COMMAND
from jobd.model.messages import OWN_KEY
from jobd.model.options import OPTIONS
from jobd.model.path import PREFIX, Path, parse_job, parse_path

Graph = Mapping[str, Any] | str | os.PathLike[str]
"""What a file would say, or the file's name."""

CALL = ("function", "run", "args", "kwargs")
_NAME = r"[^\W\d][\w-]*"


class Link(NamedTuple):
    """An edge between two jobs of a graph, or from a job that is there already."""

    source: str | int
    when: When
    value: bool


class Node(NamedTuple):
    """One job of a graph.

    ``options`` are as they were said, but for the jobs to come after: these are ids or references,
    as are results among the arguments.
    """

    name: str
    function: Function
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    check: bool
    links: list[Link]


class Sibling(Reference):
    """The result of another job of the same graph."""

    __slots__ = ("name", "path", "places")

    def __init__(self, name: str, path: Path, places: dict[str, int]) -> None:
        self.name = name
        self.path = path
        self.places = places

    def input_of(self) -> Input:
        """Return the job's place in the graph."""
        return OWN_KEY + self.places[self.name].to_bytes(8, "big")

    def path_of(self) -> Path:
        """Return the path."""
        return self.path


class Plan(NamedTuple):
    """A graph that has been checked, its jobs in an order that serves them all."""

    nodes: list[Node]
    places: dict[str, int]
    """The place of each in the list, by name."""


def read(graph: Graph) -> Plan:
    """Read a graph.

    Raises:
        UsageError: it cannot be read, or makes no sense; the text says where.
    """
    if isinstance(graph, Mapping):
        return plan_of(graph)
    path = os.fspath(graph)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "name a file in TOML") from None
    return plan_of(parse(data, path))


def parse(data: bytes, name: str) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        UsageError: it is none.
    """
    import tomllib  # noqa: PLC0415  # takes long, and few need it

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} is no TOML: {error}", "see https://toml.io") from None
    except RecursionError:
        raise too_deep(name) from None


def too_deep(what: str) -> UsageError:
    """Return the error for values in values in values."""
    return UsageError(f"{what}: nested too deeply", "write it to a file, and pass its name")


def plan_of(graph: Mapping[str, Any]) -> Plan:
    """Check a graph, and put its jobs in order.

    Raises:
        UsageError: it makes no sense; the text says where.
    """
    refuse_unknown(graph, ["jobs"], "a graph")
    jobs = graph.get("jobs")
    if not isinstance(jobs, Mapping) or not jobs:
        raise UsageError("a graph of no jobs", "describe each in a table [jobs.NAME]")
    places: dict[str, int] = {}
    try:
        nodes = {name: _Reader(name, jobs, places).node(table) for name, table in jobs.items()}
    except RecursionError:
        raise too_deep("the arguments of a job of the graph") from None
    ordered = list(_in_order(nodes))
    places |= {name: place for place, name in enumerate(ordered)}
    return Plan([nodes[name] for name in ordered], places)


def refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse a table with a word that has no meaning in it.

    Raises:
        UsageError: there is one; the hint names the nearest.
    """
    for word in table:
        if word not in known:
            raise UsageError(f"{where} has no {word!r}", _nearest(str(word), known))


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415  # takes 3 ms, and only an error needs it

    found = difflib.get_close_matches(word, [*known], n=1)
    return f"did you mean {found[0]!r}?" if found else f"there are {', '.join(known)}"


class _Reader:
    """Reads the table of one job."""

    def __init__(self, name: object, jobs: Mapping[str, Any], places: dict[str, int]) -> None:
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise UsageError(
                f"{name!r} is no name of a job here", "use letters, digits, _ and -; no digit first"
            )
        self._where = f"jobs.{name}"
        self._name = name
        self._jobs = jobs
        self._places = places

    def node(self, table: object) -> Node:
        """Return the job."""
        if not isinstance(table, Mapping):
            raise UsageError(f"{self._where} is no table", f"write [{self._where}]")
        refuse_unknown(table, [*CALL, *OPTIONS, "in_"], self._where)
        function, args, kwargs = self._call(table)
        options = {word: value for word, value in table.items() if word not in CALL}
        if function is COMMAND:
            options = {"inherit_env": True} | options
            options.pop("cwd", None)  # it is among the arguments
        for word in AFTER.keys() & options:
            options[word] = self._after(word, options[word])
        links: dict[str | int, Link] = {}
        for link in (*self._values([args, kwargs]), *self._links(options)):
            links[link.source] = self._stricter(links.get(link.source, link), link)
        check = function is not COMMAND
        return Node(self._name, function, args, kwargs, options, check, [*links.values()])

    def _call(self, table: Mapping[str, Any]) -> tuple[Function, list[Any], dict[str, Any]]:
        if ("function" in table) is ("run" in table):
            raise UsageError(
                f"{self._where} needs one of 'function' and 'run'",
                'write function = "mytasks:load", or run = ["make", "test"]',
            )
        args, kwargs = table.get("args", []), table.get("kwargs", {})
        if not isinstance(args, list | tuple):
            raise UsageError(f"{self._where}.args is no list", "write args = [1, 2]")
        if not isinstance(kwargs, Mapping):
            raise UsageError(f"{self._where}.kwargs is no table", "write kwargs = {width = 640}")
        if "function" in table:
            function = table["function"]
            if not isinstance(function, str) and not callable(function):
                raise UsageError(f"{self._where}.function is no text", 'write "module:function"')
            return function, self._with_results([*args]), self._with_results({**kwargs})
        argv = table["run"]
        texts = isinstance(argv, list | tuple) and all(isinstance(word, str) for word in argv)
        if not texts or not argv or args or kwargs:
            raise UsageError(
                f"{self._where}.run is the whole command, as a list of texts",
                'write run = ["make", "test"]',
            )
        return COMMAND, [], {"argv": [*argv], "cwd": self._directory(table)}

    def _directory(self, table: Mapping[str, Any]) -> str:
        """Return where a command runs."""
        if "argv" in table:
            problem = f"{self._where}: a command has its words in run, and no argv"
            raise UsageError(problem, "take argv out")
        try:
            return str(OPTIONS["cwd"].parse(table.get("cwd", os.curdir)))
        except UsageError as error:
            raise UsageError(f"{self._where}.cwd: {error.message}", error.hint) from None

    def _with_results(self, value: Any) -> Any:
        """Return arguments with a reference for each text that names a result."""
        if isinstance(value, str) and value.startswith(PREFIX):
            return self._result(value)
        if type(value) is list:
            return [self._with_results(item) for item in value]
        if type(value) is dict:
            return {key: self._with_results(item) for key, item in value.items()}
        return value

    def _result(self, text: str) -> Reference:
        rest = text.removeprefix(PREFIX)
        name = re.match(_NAME, rest)
        if name is None:
            return JobResult(*parse_job(text))
        return Sibling(self._known(name[0]), parse_path(text, rest[name.end() :]), self._places)

    def _known(self, name: str) -> str:
        if name not in self._jobs:
            raise UsageError(f"{self._where}: there is no job {name!r}", _nearest(name, self._jobs))
        return name

    def _after(self, word: str, said: object) -> list[Any]:
        """Return the jobs that one is to come after."""
        given = [said] if isinstance(said, str | int | Reference) else said
        if not isinstance(given, list | tuple):
            raise UsageError(f"{self._where}.{word} names no jobs", f'write {word} = ["load"]')
        return [self._named(job) for job in given]

    def _named(self, job: Any) -> Any:
        if not isinstance(job, str):
            return job
        return int(job) if job.isdecimal() else Sibling(self._known(job), (), self._places)

    def _links(self, options: Mapping[str, Any]) -> Iterator[Link]:
        for word, when in AFTER.items():
            for job in options.get(word, ()):
                if isinstance(job, Sibling | int):
                    source = job.name if isinstance(job, Sibling) else job
                    yield Link(source, when, value=False)

    def _values(self, value: Any) -> Iterator[Link]:
        if isinstance(value, Sibling | JobResult):
            source = value.name if isinstance(value, Sibling) else value.number
            yield Link(source, When.SUCCEEDED, value=True)
        elif type(value) in (list, dict):
            for item in value.values() if type(value) is dict else value:
                yield from self._values(item)

    def _stricter(self, one: Link, other: Link) -> Link:
        """Return which of two edges from one source counts."""
        if When.FAILED in (one.when, other.when) and When.SUCCEEDED in (one.when, other.when):
            raise UsageError(
                f"{self._where}: {one.source!r} cannot both succeed and fail",
                "name it in one of the two places",
            )
        return other if one.when is When.ENDED else one


def _in_order(nodes: Mapping[str, Node]) -> Iterator[str]:
    """Yield the names, each after those that its job comes after, else as they were given.

    Raises:
        UsageError: there is a cycle.
    """
    done: set[str] = set()
    for start in nodes:
        way = {start: _siblings(nodes[start])} if start not in done else {}
        while way:  # the jobs from the first to the one at hand, and what is left of their sources
            name, left = next(reversed(way.items()))
            source = next((other for other in left if other not in done), None)
            if source is None:
                del way[name]
                done.add(name)
                yield name
            elif source in way:
                names = [*way]
                cycle = [*names[names.index(source) :], source]
                raise UsageError(
                    f"the jobs come after each other in a circle: {' -> '.join(reversed(cycle))}",
                    "take one of these edges out",
                )
            else:
                way[source] = _siblings(nodes[source])


def _siblings(node: Node) -> Iterator[str]:
    return iter([link.source for link in node.links if isinstance(link.source, str)])
