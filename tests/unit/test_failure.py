"""Exceptions as text: whatever a user's function raises, describe() answers."""

import collections
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.model.job import ErrorInfo
from jobd.pool import failure
from jobd.pool.failure import (
    MESSAGE_BYTES,
    TRACEBACK_BYTES,
    clip,
    describe,
    one_line,
    origin,
    safe_repr,
)


def raised(function: Callable[..., object], *args: object) -> BaseException:
    """Call a function that must raise, and return what it raised."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # any exception is the point
        function(*args)
    return caught.value


def travelled(exc: BaseException) -> ErrorInfo:
    """Describe an exception, and check all that is promised of every description."""
    info = describe(exc)
    for text in (info.type, info.message, info.traceback):
        assert type(text) is str
    assert len(info.message.encode()) <= MESSAGE_BYTES
    assert len(info.traceback.encode()) <= TRACEBACK_BYTES
    assert info.traceback
    packed = msgspec.msgpack.encode(info)
    assert msgspec.msgpack.decode(packed, type=ErrorInfo) == info
    return info


def as_if_in(filename: str, function: FunctionType) -> Callable[..., Any]:
    """Return the function as if its source were another file."""
    code: CodeType = function.__code__.replace(co_filename=filename)
    return FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)


class MyError(Exception):
    """An exception of a user's module."""


def fail(message: str = "no luck") -> NoReturn:
    """Raise, as a user's function would."""
    raise ValueError(message)


def call(function: Callable[[], object]) -> object:
    """Call a function, as a worker would."""
    return function()


# --- what it says


def test_a_builtin_exception_is_told_as_python_tells_it() -> None:
    """Type, message, and a traceback that shows the line that failed."""
    info = travelled(raised(fail))
    assert (info.type, info.message) == ("ValueError", "no luck")
    assert info.traceback.startswith("Traceback (most recent call last):\n")
    assert "    raise ValueError(message)\n" in info.traceback
    assert info.traceback.endswith("\nValueError: no luck\n")


def test_a_user_s_exception_is_named_in_full() -> None:
    """Two modules may each have a MyError."""
    assert travelled(MyError("x")).type == f"{__name__}.MyError"


def test_an_exception_without_message_ends_in_its_name() -> None:
    """There is no colon with nothing after it."""
    assert travelled(ValueError()) == ErrorInfo("ValueError", "", "ValueError\n")


def test_causes_and_contexts_come_first() -> None:
    """The order and the words are those that people know from Python."""

    def cause() -> None:
        try:
            fail("first")
        except ValueError as exc:
            raise MyError("second") from exc

    def context() -> None:
        try:
            cause()
        except MyError:
            fail("third")

    text = travelled(raised(context)).traceback
    assert text.index("first") < text.index("direct cause") < text.index("second")
    assert text.index("second") < text.index("During handling") < text.rindex("third")


def test_from_none_hides_the_context() -> None:
    """What the user's code suppressed stays suppressed."""

    def hide() -> None:
        try:
            fail("hidden")
        except ValueError:
            raise MyError from None

    assert "hidden" not in travelled(raised(hide)).traceback


def test_notes_are_shown() -> None:
    """add_note() is there to be read."""
    exc = MyError("x")
    exc.add_note("while in Rome")
    assert travelled(exc).traceback.endswith(".MyError: x\nwhile in Rome\n")


def test_a_group_shows_its_members() -> None:
    """Each member has its own traceback, indented."""
    members = [raised(fail, "one"), MyError("two")]
    info = travelled(BaseExceptionGroup("both", members))
    assert info.message == "both (2 sub-exceptions)"
    assert "  ---- 1 of 2 ----\n  Traceback (most recent call last):\n" in info.traceback
    assert "  ValueError: one\n" in info.traceback
    assert "MyError: two\n" in info.traceback


def test_a_syntax_error_names_its_file_and_line() -> None:
    """The file never ran, so no frame says where it is."""
    exc = raised(lambda: compile("x = (\n", "tasks.py", "exec"))
    text = travelled(exc).traceback
    assert '  File "tasks.py", line 1\n    x = (\n' in text


def test_a_syntax_error_without_a_line_has_no_place() -> None:
    """Somebody raised it by hand."""
    assert travelled(SyntaxError("x")).traceback == "SyntaxError: x\n"


# --- whose frames


def test_the_worker_s_own_frames_are_left_out() -> None:
    """A traceback begins with the user's function."""
    worker = as_if_in(f"{Path(failure.__file__).parent}/child.py", call)  # type: ignore[arg-type]
    exc = raised(lambda: worker(fail))
    exc.__traceback__ = exc.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    text = travelled(exc).traceback
    assert "child.py" not in text
    assert text.count("  File ") == 1
    assert "in fail\n" in text


def test_a_worker_frame_below_the_user_s_is_kept() -> None:
    """What the user's code called is part of the story."""
    worker = as_if_in(f"{Path(failure.__file__).parent}/child.py", call)  # type: ignore[arg-type]
    text = travelled(raised(worker, fail)).traceback
    assert text.index("in raised") < text.index("child.py") < text.index("in fail")


def test_the_import_system_between_the_two_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import that fails shows the module that failed, not importlib."""
    (tmp_path / "broken_import.py").write_text("x = 1\nx / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    exc = raised(__import__("importlib").import_module, "broken_import")
    exc.__traceback__ = exc.__traceback__.tb_next.tb_next  # type: ignore[union-attr]
    text = travelled(exc).traceback
    assert text.count("  File ") == 1
    assert f'  File "{tmp_path}/broken_import.py", line 2, in <module>\n' in text
    assert origin(exc) == f"{tmp_path}/broken_import.py, line 2"


def test_an_exception_without_user_frames_has_no_empty_traceback() -> None:
    """A builtin such as math.factorial has no frames at all."""
    worker = as_if_in(f"{Path(failure.__file__).parent}/child.py", call)  # type: ignore[arg-type]
    exc = raised(worker, iter([]).__next__)
    exc.__traceback__ = exc.__traceback__.tb_next  # type: ignore[union-attr]
    assert travelled(exc).traceback == "StopIteration\n"
    assert origin(exc) == ""


# --- limits


def test_a_deep_recursion_keeps_its_head_and_its_tail() -> None:
    """Two functions that call each other: no two lines in a row are alike."""

    def ping(depth: int) -> None:
        pong(depth + 1)

    def pong(depth: int) -> None:
        ping(depth + 1)

    text = travelled(raised(ping, 0)).traceback
    assert "in raised\n" in text
    assert "frames are left out ...]\n" in text
    assert "\nRecursionError: maximum recursion depth exceeded" in text


def test_a_recursion_of_one_function_is_folded() -> None:
    """Python's own words for repeated lines are kept."""

    def down() -> None:
        down()

    assert "  [Previous line repeated " in travelled(raised(down)).traceback


def test_a_huge_message_is_cut_in_the_middle() -> None:
    """The beginning says what, the end often says why."""
    info = travelled(ValueError("begin" + "é" * 10_000_000 + "end"))
    assert info.message.startswith("begin")
    assert info.message.endswith("end")
    assert "[... cut ...]" in info.message


def test_a_ring_of_causes_ends() -> None:
    """Each exception is shown once."""
    first, second = MyError("first"), MyError("second")
    first.__cause__, second.__cause__ = second, first
    assert travelled(first).traceback.count("MyError: first") == 1


def test_a_long_chain_of_causes_is_cut() -> None:
    """The newest are kept: a retry loop may raise from the last error thousands of times."""
    exc = MyError("0")
    for number in range(1, 5000):
        newer = MyError(str(number))
        newer.__cause__, exc = exc, newer
    text = travelled(exc).traceback
    assert text.startswith("[... earlier exceptions are left out ...]\n")
    assert text.endswith("MyError: 4999\n")
    while exc.__cause__:  # by hand: a chain this long would be freed by recursion
        exc.__cause__, exc = None, exc.__cause__  # type: ignore[assignment]


def test_groups_in_groups_are_bounded() -> None:
    """Width and depth multiply, so both have a limit."""
    group: BaseException = MyError("innermost")
    for _ in range(200):
        group = BaseExceptionGroup("g", [group] * 20)
    started = time.monotonic()
    assert "more exceptions are left out" in travelled(group).traceback
    assert time.monotonic() - started < 5


def test_a_source_that_never_ends_is_not_read() -> None:
    """Code may name any file as its source, a device too."""
    exc = raised(as_if_in("/dev/zero", fail), "x")  # type: ignore[arg-type]
    assert '  File "/dev/zero", line ' in travelled(exc).traceback


# --- hostile exceptions


class Hostile(BaseException):
    """Whatever can be asked of it raises."""

    def __str__(self) -> str:
        raise SystemExit(3)

    def __repr__(self) -> str:
        raise GeneratorExit  # pytest would take KeyboardInterrupt for one

    def __getattribute__(self, name: str) -> object:
        if name == "__class__":  # or no group would take it in
            return Hostile
        raise MemoryError(name)


# It claims to be something else, with causes and a traceback of its own.  Not a class
# statement: a type checker would refuse every line of it, and rightly.
LIAR: Callable[[str], BaseException] = type(
    "Liar",
    (Exception,),
    {
        "__class__": property(lambda _: 1 / 0),
        "__cause__": 3,
        "__context__": property(lambda self: self),
        "__traceback__": "nothing",
        "__notes__": [object(), 7, "\ud800"],
        "__module__": 5,
    },
)


class Text(str):
    """A str whose methods do not do what a str's do."""

    __slots__ = ()

    def encode(self, *_: object) -> NoReturn:
        """Refuse."""
        raise RuntimeError

    def __len__(self) -> NoReturn:
        raise RuntimeError

    def __getitem__(self, _: object) -> NoReturn:
        raise RuntimeError

    def __format__(self, _: str) -> NoReturn:
        raise RuntimeError


class Answers(Exception):
    """Its __str__ returns whatever it was made with."""

    def __str__(self) -> str:
        return self.args[0]  # type: ignore[no-any-return]


class Meta(type):
    """A metaclass whose classes tell nothing of themselves."""

    def __getattribute__(cls, name: str) -> NoReturn:
        raise RuntimeError(name)


def test_an_exception_that_answers_nothing_is_described_all_the_same() -> None:
    """Its name and the reason for the missing message remain."""
    info = travelled(Hostile())
    name = f"{__name__}.Hostile"
    assert info.type == name
    assert info.message == f"({name}: its __str__ raised SystemExit)"


def test_a_failing_str_falls_back_to_the_repr() -> None:
    """A __str__ that returns no text is as good as one that raises."""
    assert travelled(Answers(5)).message == "Answers(5)"


def test_a_str_with_methods_of_its_own_becomes_a_plain_one() -> None:
    """What encodes the description would call them."""
    assert travelled(Answers(Text("plain"))).message == "plain"
    assert safe_repr([Answers(Text("x"))]) == "[Answers('x')]"


def test_a_lying_class_does_not_mislead() -> None:
    """Facts come from the slots of BaseException, not from properties of that name."""
    info = travelled(raised(lambda: (_ for _ in ()).throw(LIAR("x"))))
    assert info.type == "Liar"
    assert info.message == "x"
    assert info.traceback.startswith("Traceback (most recent call last):\n")


def test_a_metaclass_that_raises_does_not_matter() -> None:
    """The name is read past it."""
    cls = type.__call__(Meta, "Odd", (Exception,), {"__module__": "m"})
    info = travelled(BaseException.__new__(cls))
    assert info.type == "m.Odd"


def test_a_hostile_member_does_not_cost_the_others() -> None:
    """Each exception of a group and of a chain is guarded by itself."""
    group = BaseExceptionGroup("g", [Hostile(), MyError("fine")])
    group.__cause__ = Hostile()
    text = travelled(group).traceback
    assert ".Hostile" in text
    assert "MyError: fine\n" in text


def test_a_syntax_error_with_odd_fields_is_described() -> None:
    """They are plain attributes: a user's code may put anything there."""
    exc = SyntaxError("odd")
    exc.filename, exc.lineno, exc.text = Hostile(), object(), b"\xff"  # type: ignore[assignment]
    assert travelled(exc).traceback.endswith("SyntaxError: odd\n")


def test_lone_surrogates_become_escapes() -> None:
    """os.fsdecode makes them of file names that are not UTF-8."""
    info = travelled(ValueError("caf\udce9"))
    assert info.message == "caf\\udce9"
    assert info.traceback == "ValueError: caf\\udce9\n"


@given(st.text(st.characters(categories=["Cs", "Cc", "L", "So"])))
def test_any_message_travels(message: str) -> None:
    """Every text is valid UTF-8 afterwards, and a clean one is not touched."""
    info = travelled(ValueError(message))
    try:
        message.encode()
    except UnicodeEncodeError:
        return
    assert info.message == message


# --- clip, one_line and safe_repr


def test_one_line_is_one_line() -> None:
    """Line ends become spaces, and what would drive a terminal is escaped."""
    assert one_line("a\r\n\tb \x1b[31mred\x00") == "a b \\x1b[31mred\\x00"
    assert len(one_line("é" * 1000, 100).encode()) <= 100


@given(st.text(), st.integers(0, 200))
def test_clip_never_exceeds_its_limit(text: str, limit: int) -> None:
    """The limit is on bytes, and a character is never cut in two."""
    clipped = clip(text, limit)
    assert len(clipped.encode()) <= limit
    if len(text.encode(errors="backslashreplace")) <= limit:
        assert clipped == text.encode(errors="backslashreplace").decode()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.frozensets(st.integers(), max_size=1)
    ),
    max_leaves=10,
)


@given(VALUES)
def test_safe_repr_of_plain_values_is_their_repr(value: object) -> None:
    """Where nothing has to be cut, nothing is different."""
    expected = repr(value)
    if len(expected.encode()) <= 2000:
        assert safe_repr(value) == expected


@given(VALUES, st.integers(0, 60))
def test_safe_repr_keeps_within_any_limit(value: object, limit: int) -> None:
    """A short limit leaves the beginning."""
    text = safe_repr(value, limit)
    assert len(text.encode()) <= limit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (set(), "set()"),
        (frozenset(), "frozenset()"),
        (collections.deque([1]), "deque([1])"),
        (collections.Counter("a"), "Counter({'a': 1})"),
        (collections.defaultdict(int, a=1), "defaultdict({'a': 1})"),
        (bytearray(b"a"), "bytearray(b'a')"),
        (1 << 100_000, "<int of 100001 bits>"),
        (Hostile(), f"<{__name__}.Hostile: its repr raised GeneratorExit>"),
        ("\ud800", "'\\ud800'"),
    ],
    ids=lambda _: "",  # pytest would ask a hostile value for its name
)
def test_safe_repr_of_special_values(value: object, text: str) -> None:
    """Each kind that is taken apart or guarded has its form."""
    assert safe_repr(value) == text


def test_safe_repr_of_huge_values_is_quick() -> None:
    """Only what is shown is read."""
    values: list[object] = [
        list(range(3_000_000)),
        "x" * 100_000_000,
        dict.fromkeys(range(1_000_000)),
        [["deep"] * 1000] * 1000,
    ]
    started = time.process_time()
    for value in values:
        text = safe_repr(value)
        assert text.endswith("...")
        assert len(text) == 2000
    assert time.process_time() - started < 1


def test_safe_repr_of_a_list_that_holds_itself_ends() -> None:
    """It is cut at a depth."""
    ring: list[object] = []
    ring.append(ring)
    assert safe_repr(ring) == "[" * 11 + "..." + "]" * 11
