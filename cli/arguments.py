"""The arguments of a call, as they are written on a command line.

==============  ==============================================================
``VALUE``       positional: a JSON scalar if it reads as one, else text
``NAME=VALUE``  the same by name
``:JSON``       positional, any JSON
``NAME:=JSON``  the same by name
``@FILE``       positional: the text of a file, as it is; ``-`` is stdin
``NAME=@FILE``  the same by name
``:@FILE``      positional: the JSON in a file
``NAME:=@FILE`` the same by name
``@job:ID``     the result of another job, or a part of it: ``@job:7.rows[0].name``;
                by name too, and as a text anywhere in JSON
==============  ==============================================================

A JSON scalar is a number, ``true``, ``false``, ``null`` or a text in double quotes,
with no space around it: so ``5`` is a number, and ``'"5"'`` a text.  What stands
before ``=`` is a name only if Python would take it for one; ``http://x/?q=1`` has
none and is a text.  With ``raw`` what looks like a number or a result is a text.
This module does no I/O: who calls it says how a file is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jobd.inputs import JobResult
from jobd.model.errors import UsageError
from jobd.model.path import PREFIX, parse_job

Read = Callable[[str], bytes]
"""Reads a file by its name, ``-`` being stdin; raises UsageError if it cannot."""

SHOWN_CHARACTERS = 60


class Call(msgspec.Struct):
    """The arguments of a call.

    Attributes:
        args: those by position.
        kwargs: those by name.
    """

    args: list[Any]
    kwargs: dict[str, Any]


def parse_arguments(
    words: Sequence[str],
    *,
    raw: bool = False,
    args_json: str | None = None,
    kwargs_json: str | None = None,
    read: Read,
) -> Call:
    """Parse the words that follow a function's reference.

    Args:
        words: as the shell has split them.
        raw: ``VALUE`` and ``NAME=VALUE`` are text, whatever they look like.
        args_json: a JSON array of positional arguments, which come first; or ``@FILE``.
        kwargs_json: a JSON object of arguments by name; or ``@FILE``.
        read: how a file is read.

    Raises:
        UsageError: a word has the form of JSON and is none, a file cannot be read,
            or a name is given twice.
    """
    call = Call(
        _whole(args_json, "--args-json", list, "a JSON array", read),
        _whole(kwargs_json, "--kwargs-json", dict, "a JSON object", read),
    )
    if not raw:
        call = Call(_with_results(call.args), _with_results(call.kwargs))
    for word in words:
        _add(call, word, raw=raw, read=read)
    return call


def _add(call: Call, word: str, *, raw: bool, read: Read) -> None:
    """Parse one word into the call."""
    name, form, text = split_word(word)
    value = _plain(text, raw=raw, read=read) if form == "=" else _json(text, word, read)
    if form == ":=" and not raw:
        value = _with_results(value)
    if not name:
        call.args.append(value)
    elif name in call.kwargs:
        raise UsageError(f"the argument {name} is given twice", "a name can have one value only")
    else:
        call.kwargs[name] = value


def split_word(word: str) -> tuple[str, str, str]:
    """Split a word into name (or ""), ``:=`` for JSON or ``=`` for text, and the rest."""
    if word.startswith(":"):
        return "", ":=", word[1:]
    name, equals, rest = word.partition("=")
    if equals and name.isidentifier():
        return name, "=", rest
    if equals and name.endswith(":") and name[:-1].isidentifier():
        return name[:-1], ":=", rest
    return "", "=", word


def _plain(text: str, *, raw: bool, read: Read) -> Any:
    """Return what a word means that asks for no JSON: a result, a file's text, a scalar or itself."""
    if text.startswith(PREFIX):
        return text if raw else JobResult(*parse_job(text))
    if text.startswith("@"):
        return _content(text, read)
    return text if raw else _scalar(text)


def _scalar(text: str) -> Any:
    """Return the JSON scalar that the text is, or else the text."""
    # Neither an array nor an object: nobody should have to know JSON to pass a text with a
    # bracket. The first character also spares most texts the attempt.
    if not text or text[0] not in '-0123456789tfn"' or text[-1].isspace():
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return text


def _with_results(value: Any) -> Any:
    """Return JSON with a reference for each text that names a result."""
    if isinstance(value, str) and value.startswith(PREFIX):
        return JobResult(*parse_job(value))
    if isinstance(value, list):
        return [_with_results(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_results(item) for key, item in value.items()}
    return value


def _json(text: str, word: str, read: Read) -> Any:
    """Return the JSON value that a word asks for.

    Raises:
        UsageError: it is no JSON.
    """
    if text.startswith(PREFIX):
        return text
    if text.startswith("@"):
        text = _content(text, read)
    try:
        return msgspec.json.decode(text)
    except UnicodeEncodeError:
        raise UsageError(f"{_short(word)} is not UTF-8", "JSON is written in UTF-8") from None
    except RecursionError:
        raise UsageError(f"the JSON in {_short(word)} is nested too deeply") from None
    except msgspec.MsgspecError as error:
        problem = str(error).removeprefix("JSON is malformed: ")
        raise UsageError(
            f"{_short(word)} is not JSON: {problem}", "quote it for the shell: meta:='{\"a\": 1}'"
        ) from None


def _content(text: str, read: Read) -> str:
    """Return the text of the file that ``@FILE`` names.

    Raises:
        UsageError: it names none, or the file has no text.
    """
    if text == "@":
        raise UsageError("'@' names no file", "write @FILE, @- for stdin, or :'\"@\"' for the text")
    try:
        return read(text[1:]).decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"{text[1:]} is not a text in UTF-8", "pass its name, and let the function read it"
        ) from None


def _whole(text: str | None, option: str, kind: type, what: str, read: Read) -> Any:
    """Return the value of ``--args-json`` or ``--kwargs-json``."""
    if text is None:
        return kind()
    value = _json(text, option, read)
    if not isinstance(value, kind):
        raise UsageError(f"{option} must be {what}, not {_short(text)}")
    return value


def _short(text: str) -> str:
    """Quote a text, cut to a bearable length."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")
