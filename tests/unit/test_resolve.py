"""References to functions: each way in which one may not be callable has its sentence."""

import importlib
import math
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobd.model.errors import BadFunction, UsageError
from jobd.pool.resolve import Refusal, _modules_in, check, resolve

TASKS = """
import functools
from os.path import join

SIZE = 3

def resize(path, width, crop=True): ...
def double(x): return 2 * x
def typed(path: str, *, width: "Unknown" = 5) -> None: ...

quadruple = functools.partial(lambda a, b: a * b, 4)

class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, x): return x + self.n
    def method(self, x): return x
    @staticmethod
    def static(x): return x + 1
    @classmethod
    def create(cls, n): return cls(n)
    class Inner:
        @staticmethod
        def f(): return "inner"

add_one = Adder(1)

def with_session(function):
    @functools.wraps(function)
    def wrapper(*args): return function("session", *args)
    return wrapper

@with_session
def query(session, text): return session, text
"""

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules into a directory that comes first on sys.path; forget them afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write_module(name: str, source: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def tasks(write: Write) -> None:
    """Provide the module mytasks."""
    write("mytasks.py", TASKS)


def refused(reference: str, nargs: int = 0, *kwnames: str) -> Refusal:
    """Check a call that must be refused; the refusal has to be fit for a terminal."""
    refusal = check(reference, nargs, kwnames)
    assert refusal is not None
    assert "\n" not in refusal.message + refusal.hint
    assert "Traceback" not in refusal.message + refusal.hint
    return refusal


# --- what resolves


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("reference", "args", "result"),
    [
        ("mytasks:double", (4,), 8),
        ("mytasks:quadruple", (4,), 16),
        ("mytasks:add_one", (4,), 5),
        ("mytasks:Adder.static", (4,), 5),
        ("mytasks:Adder.Inner.f", (), "inner"),
        ("mytasks:add_one.method", (4,), 4),
        ("mytasks:Adder.method", (None, 4), 4),
        ("mytasks:query", ("text",), ("session", "text")),
        ("math:factorial", (4,), 24),
        ("os.path:basename", ("a/b",), "b"),
        ("builtins:int", ("4",), 4),
    ],
)
def test_whatever_can_be_called_by_name_resolves(
    reference: str, args: tuple[object, ...], result: object
) -> None:
    """Functions, partials, callable objects, methods, classes and builtins alike."""
    assert check(reference, len(args), ()) is None
    assert resolve(reference)(*args) == result


@pytest.mark.usefixtures("tasks")
def test_a_class_and_a_classmethod_resolve() -> None:
    """A class is called to make its instance."""
    made = resolve("mytasks:Adder.create")(7), resolve("mytasks:Adder")(7)
    assert [instance(1) for instance in made] == [8, 8]  # type: ignore[operator]
    assert check("mytasks:Adder.create", 1, ()) is None
    assert check("mytasks:Adder", 0, ["n"]) is None


def test_resolving_again_imports_nothing_again(write: Write) -> None:
    """A module runs once, however often its functions are named."""
    write("counted.py", "import math\nmath.counted = getattr(math, 'counted', 0) + 1\ndef f(): ...")
    try:
        assert resolve("counted:f") is resolve("counted:f")
        assert math.counted == 1  # type: ignore[attr-defined]
    finally:
        del math.counted  # type: ignore[attr-defined]


def test_a_builtin_without_signature_is_accepted() -> None:
    """Only the call can tell."""
    assert check("builtins:max", 5, ()) is None


def test_a_signature_that_raises_is_no_reason_to_refuse(write: Write) -> None:
    """A hostile __signature__ is the same as none."""
    write("hostile.py", "class C:\n  __signature__ = 5\n  def __call__(self): ...\nc = C()")
    assert check("hostile:c", 3, ()) is None


@pytest.mark.usefixtures("tasks")
def test_a_wrapper_is_judged_by_what_it_takes_itself() -> None:
    """A decorator may add arguments, so the wrapped function's signature proves nothing."""
    assert check("mytasks:query", 1, ()) is None


def test_an_import_that_prints_is_harmless(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints goes where prints go."""
    write("chatty.py", "print('hello')\ndef f(): ...")
    assert check("chatty:f", 0, ()) is None
    assert capsys.readouterr().out == "hello\n"


# --- no such module


def test_an_unknown_module_is_named_with_what_to_do() -> None:
    """The usual cause is a daemon that was started elsewhere."""
    assert refused("no_such_thing_at_all:f") == Refusal(
        "cannot import no_such_thing_at_all:"
        " there is no module 'no_such_thing_at_all' on the workers' path",
        "start the daemon in the directory of no_such_thing_at_all.py, or with --path DIR",
    )


@pytest.mark.usefixtures("tasks")
def test_a_near_module_is_proposed() -> None:
    """Only the user's own directories are searched."""
    assert "(did you mean 'mytasks'?)" in refused("mytask:resize").message


def test_a_near_module_of_a_package_is_proposed(write: Write) -> None:
    """The proposal is the whole name."""
    write("shop/__init__.py", "")
    write("shop/billing.py", "")
    refusal = refused("shop.biling:f")
    assert refusal.message.endswith("(did you mean 'shop.billing'?)")


@pytest.mark.usefixtures("tasks")
def test_a_function_written_as_a_module_is_explained() -> None:
    """A dot was written where the colon belongs."""
    assert refused("mytasks.Adder:static") == Refusal(
        "cannot import mytasks.Adder: 'mytasks' is a module, not a package",
        "what a module holds is named after the colon, as in mytasks:Adder",
    )


def test_a_missing_import_inside_the_module_is_told_apart(write: Write) -> None:
    """The module is there; what it needs is not."""
    write("needy.py", "import panda_bears.core")
    refusal = refused("needy:f")
    assert refusal.message == (
        "cannot import needy: it needs 'panda_bears', which is not installed for the workers"
    )
    assert sys.executable in refusal.hint


def test_a_module_written_after_a_refusal_is_found(write: Write) -> None:
    """The checker lives on while its users write their files."""
    assert "there is no module" in refused("later:f").message
    write("later.py", "def f(): ...")
    assert check("later:f", 0, ()) is None


def test_a_crowded_directory_is_read_only_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proposal is not worth listing a million files."""
    for number in range(30):
        (tmp_path / f"data_{number}.py").touch()
    monkeypatch.setattr("jobd.pool.resolve.NAMES_READ", 10)
    assert len(_modules_in([str(tmp_path)])) == 10
    assert _modules_in([f"{tmp_path}/missing"]) == []


# --- an import that fails


def test_a_syntax_error_names_its_file_and_line(write: Write, tmp_path: Path) -> None:
    """One line, with all that is needed to go there."""
    write("broken.py", "x = 1\n\ndef f(:\n")
    message = refused("broken:f").message
    place = f"SyntaxError in {tmp_path}/broken.py line 3"
    assert message == f"cannot import broken: {place}: invalid syntax"


def test_an_exception_names_its_place(write: Write, tmp_path: Path) -> None:
    """The place is that of the raise, and the way to the traceback is the hint."""
    write("failing.py", "x = 1\nraise ValueError('first\\nsecond')\n")
    refusal = refused("failing:f")
    place = f"({tmp_path}/failing.py, line 2)"
    assert refusal.message == f"cannot import failing: ValueError: first second {place}"
    assert refusal.hint.endswith(" -c 'import failing'")


def test_an_import_that_exits_is_told_about_main_guards(write: Write) -> None:
    """It is a script, most likely."""
    write("script.py", "import sys\nsys.exit(3)\n")
    refusal = refused("script:f")
    assert refusal.message == "cannot import script: it exits when it is imported: sys.exit(3)"
    assert "__main__" in refusal.hint


@pytest.mark.parametrize(
    "statement",
    [
        "raise KeyboardInterrupt",
        "raise BaseException('odd')",
        "raise GeneratorExit",
        "raise SyntaxError('by hand')",
        "raise ModuleNotFoundError('by hand')",
        "class E(BaseException):\n  def __str__(self): raise SystemExit\nraise E",
        "class E(ImportError):\n  name = property(lambda self: 1 / 0)\nraise E('x')",
        "class E(Exception):\n  __class__ = property(lambda self: 1 / 0)\nraise E('x')",
        "def f(): f()\nf()",
        "import math\nfrom math import nothing",
        "x = '\ud800'.encode()".encode("unicode_escape").decode(),
    ],
)
def test_whatever_an_import_raises_becomes_one_sentence(write: Write, statement: str) -> None:
    """Nothing that a module does at its top level gets past the checker."""
    write("odd.py", statement)
    assert refused("odd:f").message.startswith("cannot import odd: ")


def test_the_exception_itself_is_the_cause(write: Write) -> None:
    """A worker reports it with the traceback of the user's module."""
    write("failing.py", "1 / 0")
    with pytest.raises(BadFunction) as caught:
        resolve("failing:f")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_fork_during_the_import_does_not_answer_twice(write: Write, tmp_path: Path) -> None:
    """The child of such a fork ends where the import ends."""
    write("forking.py", "import os\npid = os.fork()\ndef f(): return pid\n")
    assert check("forking:f", 0, ()) is None
    (tmp_path / f"survivor_{os.getpid()}").touch()
    child = resolve("forking:f")()
    assert isinstance(child, int)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(tmp_path.glob("survivor_*"))) == 1


# --- no such function


@pytest.mark.usefixtures("tasks")
def test_a_near_function_is_proposed() -> None:
    """A letter is soon swapped."""
    assert refused("mytasks:reszie") == Refusal(
        "mytasks has no function 'reszie' (did you mean 'resize'?)", ""
    )


@pytest.mark.usefixtures("tasks")
def test_without_a_near_one_a_few_functions_are_listed() -> None:
    """The module's own come first, in the order in which they are written."""
    assert refused("mytasks:xyzzy") == Refusal(
        "mytasks has no function 'xyzzy'",
        "its functions are: resize, double, typed, with_session, query, ...",
    )


@pytest.mark.usefixtures("tasks")
def test_a_missing_method_is_told_of_its_class() -> None:
    """The place is written as in the reference."""
    assert refused("mytasks:Adder.methud").message == (
        "mytasks:Adder has no method 'methud' (did you mean 'method'?)"
    )
    assert refused("mytasks:Adder.xyzzy").hint == ("its methods are: method, static, create, Inner")


@pytest.mark.usefixtures("tasks")
def test_a_value_without_functions_is_told_as_its_place() -> None:
    """A number has attributes, but no namespace to list."""
    assert refused("mytasks:SIZE.f") == Refusal(
        "mytasks:SIZE has no function 'f'", "it has no public functions"
    )


def test_a_module_without_functions_says_so(write: Write) -> None:
    """An empty list is not shown as one."""
    write("empty.py", "")
    assert refused("empty:f").hint == "it has no public functions"


@pytest.mark.parametrize("history", ["", "shop.billing", "shop.deep.down"])
def test_what_was_imported_before_changes_no_answer(write: Write, history: str) -> None:
    """A package holds its submodules: a fresh worker and a checker with a past say the same."""
    write("shop/__init__.py", "")
    write("shop/billing.py", "def f(x): ...")
    write("shop/deep/__init__.py", "")
    write("shop/deep/down.py", "def g(): ...")
    if history:
        importlib.import_module(history)
    assert check("shop:billing.f", 1, ()) is None
    assert check("shop:deep.down.g", 0, ()) is None
    assert resolve("shop:billing.f").__module__ == "shop.billing"
    assert refused("shop:billing") == Refusal(
        "shop:billing is not callable (it is a module)",
        "name a function of it: 'shop.billing:FUNCTION'",
    )
    assert refused("shop:deep.down").hint == "name a function of it: 'shop.deep.down:FUNCTION'"
    assert refused("shop:nothing.f").message == "shop has no function 'nothing'"
    assert refused("shop:billing.f.g").message == "shop:billing.f has no function 'g'"


def test_what_a_package_holds_by_itself_goes_before_its_submodules(write: Write) -> None:
    """As in any program; and nothing is imported for the last name."""
    write(
        "shop/__init__.py",
        "def __getattr__(name):\n  if name == 'late': return print\n  raise AttributeError",
    )
    write("shop/late.py", "raise SystemError")
    write("shop/__main__.py", "raise SystemError")
    assert resolve("shop:late") is print
    assert refused("shop:__main__").message == "shop:__main__ is not callable (it is a module)"


def test_a_submodule_that_cannot_be_imported_is_told(write: Write) -> None:
    """With the reason, as if it had been named before the colon."""
    write("shop/__init__.py", "")
    write("shop/broken.py", "import panda_bears")
    assert refused("shop:broken.f").message.startswith(
        "cannot import shop.broken: it needs 'panda_bears'"
    )


def test_an_attribute_that_raises_is_told(write: Write) -> None:
    """Descriptors and module __getattr__ are the user's code."""
    write("trap.py", "def __getattr__(name):\n    raise SystemExit(name)\n")
    assert refused("trap:f").message.startswith("cannot read f of trap: SystemExit: f (")


# --- a wrong call


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mytasks:SIZE", "mytasks:SIZE is not callable (it is an int)"),
        ("mytasks:functools", "mytasks:functools is not callable (it is a module)"),
        ("mytasks:__name__", "mytasks:__name__ is not callable (it is a str)"),
    ],
)
def test_what_is_not_callable_is_named(reference: str, message: str) -> None:
    """The sentence says what it is instead."""
    assert refused(reference).message == message


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("nargs", "kwnames", "reason"),
    [
        (1, (), "missing a required argument: 'width'"),
        (4, (), "too many positional arguments"),
        (2, ("colour",), "got an unexpected keyword argument 'colour'"),
        (2, ("path",), "multiple values for argument 'path'"),
    ],
)
def test_wrong_arguments_are_answered_with_the_signature(
    nargs: int, kwnames: tuple[str, ...], reason: str
) -> None:
    """The reason is Python's own."""
    assert refused("mytasks:resize", nargs, *kwnames) == Refusal(
        f"mytasks:resize does not take these arguments: {reason}",
        "its signature is resize(path, width, crop=True)",
    )


@pytest.mark.usefixtures("tasks")
def test_a_signature_is_shown_without_types() -> None:
    """They are for a type checker; the line is short."""
    assert refused("mytasks:typed", 2).hint == "its signature is typed(path, *, width=5)"


def test_a_default_whose_repr_raises_does_not_hide_the_refusal(write: Write) -> None:
    """The signature is only the hint."""
    write("shy.py", "class S:\n  def __repr__(self): raise SystemExit\ndef f(x=S()): ...")
    assert refused("shy:f", 2).hint == "its signature is f(...)"


@pytest.mark.usefixtures("tasks")
def test_an_instance_method_is_explained() -> None:
    """Its first argument would be its self, which no job has."""
    refusal = refused("mytasks:Adder.method", 1)
    assert refusal.message == (
        "mytasks:Adder.method does not take these arguments: missing a required argument: 'x'"
    )
    assert refusal.hint == (
        "Adder.method is an instance method, and there is no instance to call it on:"
        " use a staticmethod, a classmethod or a function"
    )


@pytest.mark.parametrize("reference", ["math.factorial", "m:<lambda>", "m:f.<locals>.g", ""])
def test_a_reference_of_the_wrong_form_is_refused(reference: str) -> None:
    """The grammar's own sentences come through."""
    with pytest.raises(UsageError) as caught:
        resolve(reference)
    assert refused(reference) == Refusal(caught.value.message, caught.value.hint)
