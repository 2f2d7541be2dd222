"""From a function reference to the function, by importing the user's module.

This runs the user's code, so it runs in a worker, or in the checker process that
judges a reference at submit; never in the daemon.  What an import may do:

* raise anything, SystemExit and KeyboardInterrupt included: it becomes one
  sentence (BadFunction), with the exception itself as its cause;
* print: harmless, file descriptors 1 and 2 are not ours here;
* fork: only the process that began the import goes on after it, or two processes
  would answer on one channel;
* take for ever, or end the process: for the caller's caller to see, from outside.

After the colon stand names of what the module holds, and of what that holds.  On the
way a package holds its submodules too, whether anybody has imported them yet or not: what
it does not have by itself is imported.  Else ``pkg:sub.work`` would be right or wrong by what the
process had imported before, and the checker's history is not the worker's.

`check` judges the shape of a call only (how many arguments, which names), and only
what the function itself says of it: where there is no signature, the call will tell.
"""

import contextlib
import difflib
import functools
import importlib
import inspect
import itertools
import os
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

import msgspec

from jobd.context import TimeLimitExceeded
from jobd.model.errors import BadFunction, NotAllowed, UsageError
from jobd.model.reference import parse_reference
from jobd.pool.alarm import Overdue, Stopped
from jobd.pool.confine import refuse_foreign
from jobd.pool.failure import describe, one_line, origin, safe_repr, type_name

NAMES_READ = 1000  # of a directory or a namespace, when looking for a near name
NAMES_SHOWN = 5


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Why a reference or its arguments will not do: one sentence, and what to do next."""

    message: str
    hint: str
    error: str = BadFunction.error


def resolve(reference: str, allow: Sequence[str] = ()) -> Callable[..., object]:
    """Import what the reference names and return it, if ``allow`` (``security.allow``) has it.

    Raises UsageError for a reference of the wrong form, and BadFunction (which is
    one) when there is no such module or attribute, the import fails, or what it
    names is not callable.  An exception of the user's code is the `__cause__`.
    Raises NotAllowed for what the list does not have.
    """
    module_name, path = parse_reference(reference)
    found: object = _module(module_name)
    for depth, name in enumerate(names := path.split(".")):
        place = ":".join((module_name, ".".join(names[:depth])))
        found = _attribute(found, name, place, is_last=depth == len(names) - 1)
    if isinstance(found, types.ModuleType) and not callable(found):
        raise _no_function(reference, found.__name__)
    if not callable(found):
        kind = type_name(found)
        article = "an" if kind[0] in "aeiou" else "a"
        raise BadFunction(
            f"{reference} is not callable (it is {article} {kind})", "name a function or a class"
        )
    refuse_foreign(reference, found, allow)
    return found


def check(
    reference: str, nargs: int, kwnames: Sequence[str], allow: Sequence[str] = ()
) -> Refusal | None:
    """Tell why the reference cannot be called with such arguments; None when it can.

    Args:
        reference: the function reference, as the user wrote it.
        nargs: how many positional arguments there are.
        kwnames: the names of the keyword arguments.
        allow: the patterns of ``security.allow``.
    """
    try:
        _check_call(reference, resolve(reference, allow), nargs, kwnames)
    except (UsageError, NotAllowed) as refused:
        kind = type(refused) if isinstance(refused, NotAllowed) else BadFunction
        message, hint = one_line(refused.message, 1000), one_line(refused.hint, 1000)
        return Refusal(message, hint, kind.error)
    return None


# --- the module


def _module(name: str) -> types.ModuleType:
    """Import a module, or raise BadFunction with the reason in one sentence."""
    importer = os.getpid()
    try:
        if name not in sys.modules:
            importlib.invalidate_caches()  # a checker lives on while files come and go
        return importlib.import_module(name)
    except (Stopped, Overdue, TimeLimitExceeded):
        raise  # this is not the module's failure
    except BaseException as exc:  # an import may raise anything
        raise _import_failure(name, exc) from exc
    finally:
        if os.getpid() != importer:
            os._exit(0)


def _import_failure(module: str, exc: BaseException) -> BadFunction:
    """Say in one sentence why an import failed."""
    problem = f"cannot import {module}"
    known = None
    with contextlib.suppress(BaseException):  # the fields of an exception may be anything too
        known = _known_failure(problem, module, exc)
    return known or BadFunction(
        f"{problem}: {_summary(exc)}", f"for the traceback: {sys.executable} -c 'import {module}'"
    )


def _known_failure(problem: str, module: str, exc: BaseException) -> BadFunction | None:
    """Say what the usual causes of a failed import are; None for any other."""
    if isinstance(exc, ModuleNotFoundError) and type(exc.name) is str:
        if f"{module}.".startswith(f"{exc.name}."):
            return _no_module(problem, module, exc.name)
        return BadFunction(
            f"{problem}: it needs '{exc.name}', which is not installed for the workers",
            f"install it for {sys.executable}, or start the daemon with --path DIR",
        )
    if isinstance(exc, SyntaxError) and exc.lineno is not None:
        place = f"{type_name(exc)} in {exc.filename} line {exc.lineno}"
        return BadFunction(f"{problem}: {place}: {one_line(exc.msg)}")
    if isinstance(exc, SystemExit):
        return BadFunction(
            f"{problem}: it exits when it is imported: sys.exit({safe_repr(exc.code, 80)})",
            'put what it does as a script under: if __name__ == "__main__":',
        )
    return None


def _summary(exc: BaseException) -> str:
    """Return type, message and place of an exception of the user's code, in one line."""
    info = describe(exc)
    message = f": {one_line(info.message)}" if info.message else ""
    place = origin(exc)
    return f"{info.type}{message}" + (f" ({place})" if place else "")


def _no_module(problem: str, module: str, missing: str) -> BadFunction:
    """Say that there is no such module, and name the nearest one that there is."""
    parent, _, name = missing.rpartition(".")
    package = sys.modules.get(parent)
    if package is not None and not hasattr(package, "__path__"):
        return BadFunction(
            f"{problem}: '{parent}' is a module, not a package",
            f"what a module holds is named after the colon, as in {parent}:{name}",
        )
    directories = getattr(package, "__path__", ()) if parent else _user_directories()
    near = _did_you_mean(name, _modules_in(directories), f"{parent}." if parent else "")
    return BadFunction(
        f"{problem}: there is no module '{missing}' on the workers' path{near}",
        f"start the daemon in the directory of {module.partition('.')[0]}.py, or with --path DIR",
    )


def _user_directories() -> list[str]:
    """List the directories of sys.path that hold the user's own modules, not installed ones."""
    library = str(Path(os.__file__).parent)
    installed = ("site-packages", "dist-packages")
    return [
        path or "."
        for path in sys.path
        if not path.startswith(library) and Path(path).name not in installed
    ]


def _modules_in(directories: Iterable[str]) -> list[str]:
    """List names of modules and packages in some directories, reading no more than it has to.

    Not pkgutil.iter_modules: it lists every directory to its end, and each of its
    subdirectories too, and a user may start the daemon in a directory of a million files.
    """
    names: list[str] = []
    for directory in itertools.islice(directories, 5):
        try:
            with os.scandir(directory) as entries:
                files = [entry.name for entry in itertools.islice(entries, NAMES_READ)]
        except OSError:
            continue
        names += [name.partition(".")[0] for name in files if name.endswith((".py", ".so"))]
        names += [name for name in files if name.isidentifier()]
    return names


# --- the attribute


def _attribute(owner: object, name: str, place: str, *, is_last: bool) -> object:
    """Read one attribute on the way; `place` is the part of the reference before it."""
    try:
        return cast("object", getattr(owner, name))
    except AttributeError as exc:
        if is_last and name in _modules_in(getattr(owner, "__path__", ())):
            reference = f"{place}{'.' * (not place.endswith(':'))}{name}"
            raise _no_function(reference, f"{getattr(owner, '__name__', '')}.{name}") from exc
        submodule = None if is_last else _submodule(owner, name)
        if submodule is not None:
            return submodule
        raise _no_attribute(owner, name, place.rstrip(":")) from exc
    except BaseException as exc:  # a property may raise anything
        raise BadFunction(f"cannot read {name} of {place.rstrip(':')}: {_summary(exc)}") from exc


def _no_function(reference: str, module: str) -> BadFunction:
    """Say that a reference names a module; the same whether it has been imported or not."""
    problem = f"{reference} is not callable (it is a module)"
    return BadFunction(problem, f"name a function of it: '{module}:FUNCTION'")


def _submodule(owner: object, name: str) -> types.ModuleType | None:
    """Import what a package does not hold by itself; None if it has no such submodule."""
    if not isinstance(owner, types.ModuleType) or not hasattr(owner, "__path__"):
        return None
    full = f"{owner.__name__}.{name}"
    try:
        return _module(full)
    except BadFunction as refused:
        cause = refused.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == full:
            return None
        raise


def _no_attribute(owner: object, name: str, place: str) -> BadFunction:
    """Say that there is no such function, and name the nearest, or a few that there are."""
    kind = "method" if isinstance(owner, type) else "function"
    problem = f"{place} has no {kind} '{name}'"
    functions = _functions(owner)
    near = _did_you_mean(name, functions)
    if near:
        return BadFunction(f"{problem}{near}")
    if not functions:
        return BadFunction(problem, f"it has no public {kind}s")
    more = ", ..." if len(functions) > NAMES_SHOWN else ""
    return BadFunction(problem, f"its {kind}s are: {', '.join(functions[:NAMES_SHOWN])}{more}")


def _functions(owner: object) -> list[str]:
    """List the public callables of a module or class: its own before those it imported."""
    try:
        space = dict(itertools.islice(vars(owner).items(), NAMES_READ))
    except TypeError:
        return []  # neither a module nor a class
    names = [name for name in space if not name.startswith("_") and _is_callable(space[name])]
    own = getattr(owner, "__name__", "")
    return sorted(names, key=lambda name: _home(space[name]) != own)  # stable: in order of writing


def _is_callable(value: object) -> bool:
    return callable(value) or isinstance(value, staticmethod | classmethod)


def _home(value: object) -> str:
    """Return the name of the module that defines a function; "" for anything else."""
    return value.__module__ if isinstance(value, types.FunctionType) else ""


def _did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return " (did you mean 'x'?)" for the nearest of the names; "" if none is near."""
    near = difflib.get_close_matches(name, sorted(set(names)), n=1)
    return f" (did you mean '{prefix}{near[0]}'?)" if near else ""


# --- the call


def _check_call(
    reference: str, function: Callable[..., object], nargs: int, kwnames: Sequence[str]
) -> None:
    """Raise BadFunction if the function's signature does not take such arguments."""
    signature = _signature(function)
    if signature is None:
        return
    try:
        signature.bind(*(None,) * nargs, **dict.fromkeys(kwnames))
    except TypeError as exc:
        raise BadFunction(
            f"{reference} does not take these arguments: {exc}",
            _method_hint(reference) or f"its signature is {_shown(reference, signature)}",
        ) from exc


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    """Return the signature of the callable itself; None if it has none to tell.

    A decorator's wrapper is not followed to what it wraps: it may add arguments, or
    take some away, and a call that would have worked must not be refused.
    """
    try:
        return inspect.signature(function, follow_wrapped=False)
    except BaseException:  # noqa: BLE001  # ValueError for a builtin; else the user's descriptors
        return None


def _method_hint(reference: str) -> str:
    """Return what to do when the reference is a method that needs an instance; else ""."""
    module, path = parse_reference(reference)
    *owners, name = path.split(".")
    try:
        owner = functools.reduce(getattr, owners, cast("object", sys.modules[module]))
        method = inspect.getattr_static(owner, name)
    except BaseException:  # noqa: BLE001  # the user's descriptors; it is only a hint
        return ""
    if not (isinstance(owner, type) and isinstance(method, types.FunctionType)):
        return ""
    return (
        f"{path} is an instance method, and there is no instance to call it on: "
        "use a staticmethod, a classmethod or a function"
    )


def _shown(reference: str, signature: inspect.Signature) -> str:
    """Write a signature for people: the function's name and its parameters, without types."""
    name = reference.rpartition(":")[2].rpartition(".")[2]
    plain = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    try:
        text = str(signature.replace(parameters=plain, return_annotation=signature.empty))
    except BaseException:  # noqa: BLE001  # the repr of a default is the user's code
        text = "(...)"
    return one_line(f"{name}{text}")
