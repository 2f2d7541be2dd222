"""Function references: the text ``module:function`` that names what a job runs.

The grammar is strict, so that a reference means one thing wherever it is read:

    reference = dotted ":" dotted
    dotted    = name *("." name)        name: a Python identifier, not a keyword

Whatever is refused is refused with the nearest reference that would do.
Nothing is imported or opened here: whether the function exists is for a
worker to say (see jobd.pool.resolve).
"""

from keyword import iskeyword

from jobd.model.errors import UsageError

MAX_CHARACTERS = 500  # also bounds what a log line or an error may repeat
SHOWN_CHARACTERS = 80

_FORM = "a reference is MODULE:FUNCTION, as in math:factorial"
_TOP_LEVEL = "give it a name at the top level of its module"


def parse_reference(text: str) -> tuple[str, str]:
    """Split a function reference into its module and its attribute path.

    "pkg.mod:Class.method" gives ("pkg.mod", "Class.method").  Raises UsageError
    with one sentence, which proposes a reference where one can be guessed.
    """
    module, colon, attributes = text.partition(":")
    if len(text) > MAX_CHARACTERS or not (colon and _dotted(module) and _dotted(attributes)):
        raise _refusal(text)
    if module == "__main__":
        # Each process has its own __main__: the submitter's is not the worker's.
        raise UsageError(
            f"{_shown(text)} names a script as it was run, which a worker cannot import",
            "use the name of its file: for tasks.py, 'tasks:FUNCTION'",
        )
    return module, attributes


def _dotted(text: str) -> bool:
    """Tell whether the text is one or more Python names joined by dots."""
    return all(name.isidentifier() and not iskeyword(name) for name in text.split("."))


def _refusal(text: str) -> UsageError:
    """Say what is wrong with the text; the most specific reason comes first."""
    if not text:
        return UsageError("the function reference is empty", _FORM)
    if len(text) > MAX_CHARACTERS:
        problem = f"the function reference has {len(text)} characters"
        return UsageError(f"{problem}: at most {MAX_CHARACTERS} are allowed", _FORM)
    if "<lambda>" in text or "<locals>" in text:
        return _nameless(text)
    return _misspelt(text)


def _misspelt(text: str) -> UsageError:
    """Refuse what is of another form, such as a path or a call."""
    if text.split() != [text]:
        return _proposal(f"{_shown(text)} has white space in it", "".join(text.split()))
    if "(" in text:
        called = text.partition("(")[0]
        return _proposal(f"{_shown(text)} is a call", called, "the arguments follow the reference")
    module, colon, attributes = text.partition(":")
    if _is_path(module):
        return _path(text, module, attributes)
    if not colon:
        return _without_colon(text)
    return _bad_part(text, module, attributes)


def _nameless(text: str) -> UsageError:
    """Refuse what only exists while another function runs."""
    kind = "a lambda" if "<lambda>" in text else "a function inside another function"
    return UsageError(f"{_shown(text)} is {kind}, which a worker cannot find by name", _TOP_LEVEL)


def _is_path(module: str) -> bool:
    """Tell whether the text before the colon is a file's path, not a module's name."""
    return "/" in module or "\\" in module or module.endswith(".py")


def _path(text: str, module: str, attributes: str) -> UsageError:
    """Refuse a file's path, and propose the module that it would be."""
    parts = [
        part for part in module.replace("\\", "/").removesuffix(".py").split("/") if part != "."
    ]
    if not _dotted(".".join(parts)):
        parts = parts[-1:]  # absolute, or through "..": only the file's name can be a module
    name = ".".join(parts)
    return _proposal(
        f"{_shown(text)} is the path of a file, not a module",
        f"{name}:{attributes or 'FUNCTION'}",
        f"start the daemon in the directory of {parts[-1]}.py, or with --path DIR"
        if _dotted(name)
        else "",
    )


def _without_colon(text: str) -> UsageError:
    """Refuse a reference without colon: the last dot is where it most likely belongs."""
    module, _, function = text.rpartition(".")
    proposal = f"{module or 'MODULE'}:{function}"
    return _proposal(f"{_shown(text)} is not a function reference", proposal)


def _bad_part(text: str, module: str, attributes: str) -> UsageError:
    """Refuse a reference of the right form with a part that is not a name."""
    shown = _shown(text)
    if not module:
        return _proposal(f"{shown} names no module", f"MODULE:{attributes}")
    if not attributes:
        return _proposal(f"{shown} names no function", f"{module}:FUNCTION")
    if ":" in attributes:
        return _proposal(
            f"{shown} has more than one colon", f"{module}:{attributes.replace(':', '.')}"
        )
    wrong = next(name for name in f"{module}.{attributes}".split(".") if not _dotted(name))
    if not wrong:
        names = (
            [name for name in module.split(".") if name],
            [name for name in attributes.split(".") if name],
        )
        return _proposal(
            f"{shown} has a dot with no name beside it", ":".join(map(".".join, names))
        )
    reason = "is a keyword of Python" if iskeyword(wrong) else "is not a Python name"
    return UsageError(f"in {shown}, {_shown(wrong)} {reason}", _FORM)


def _proposal(problem: str, proposal: str, hint: str = "") -> UsageError:
    """Join the problem with the reference to write instead, when that one would parse."""
    module, _, attributes = proposal.partition(":")
    if not (_dotted(module) and _dotted(attributes)):
        return UsageError(problem, hint or _FORM)
    return UsageError(f"{problem}: write '{proposal}'", hint or _FORM)


def _shown(text: str) -> str:
    """Quote a text for one line of a terminal, cut to a bearable length."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
