"""Which versions of which packages a pickle needs: those whose classes and functions it names.

They are written down with it, and looked at only if it cannot be unpickled: what one
version of a package has pickled another one cannot always read, and the error that comes of it
seldom says so.

In a row they follow on the pickle, where unpickling does not look; a file has a place for them.
"""

from __future__ import annotations

import sys

import msgspec

_MEMOIZE, _SHORT_TEXT = 0x94, 0x8C
_NAMED = b"\x94\x93"
"""The name of something in a module is kept in mind, and looked up: MEMOIZE, STACK_GLOBAL."""

MARK = b"\0versions"
"""What a pickle with versions ends with; a pickle itself ends with a dot."""

_LENGTH_BYTES = 4


def versions_in(pickle: bytes) -> dict[str, str]:
    """Return the versions of the packages that a pickle names, as far as they tell them."""
    found: dict[str, str] = {}
    at = pickle.find(_NAMED)
    while at >= 0:
        package = _module(pickle, at).partition(".")[0]
        if package and package not in sys.stdlib_module_names and package not in found:
            version = getattr(sys.modules.get(package), "__version__", None)
            if isinstance(version, str):
                found[package] = version
        at = pickle.find(_NAMED, at + 1)
    return found


def _module(pickle: bytes, end: int) -> str:
    """Return the module of the name that ends here; "" where there is none, or it was named before."""
    start = _text_start(pickle, end)
    if start < 3 or pickle[start - 3] != _MEMOIZE:
        return ""
    end = start - 3
    start = _text_start(pickle, end)
    return pickle[start:end].decode("utf-8", "replace") if start else ""


def _text_start(pickle: bytes, end: int) -> int:
    """Return where the short text begins that ends here; 0: there is none."""
    for length in range(1, min(256, end - 1)):
        start = end - length
        if pickle[start - 1] == length and pickle[start - 2] == _SHORT_TEXT:
            return start
    return 0


def written(versions: dict[str, str]) -> bytes:
    """Return what follows on a pickle that needs these versions: nothing, if there are none."""
    if not versions:
        return b""
    text = msgspec.json.encode(versions)
    return b"".join((text, len(text).to_bytes(_LENGTH_BYTES, "big"), MARK))


def versions_after(data: bytes | memoryview) -> dict[str, str]:
    """Return the versions that follow on a pickle; none, if none do."""
    data = bytes(data)
    if not data.endswith(MARK):
        return {}
    end = len(data) - len(MARK) - _LENGTH_BYTES
    length = int.from_bytes(data[end : end + _LENGTH_BYTES], "big")
    try:
        return msgspec.json.decode(data[end - length : end], type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def skew(versions: dict[str, str]) -> str:
    """Say which packages have other versions here; "" if none has."""
    return "".join(
        f"; it was pickled with {package} {version}, and here is {package} {here}"
        for package, version in versions.items()
        if (here := _version_here(package)) != version
    )


def _version_here(package: str) -> str:
    """Return the version of a package that is imported, or that can be."""
    from importlib import metadata  # noqa: PLC0415  # takes long, and only an error needs it

    version = getattr(sys.modules.get(package), "__version__", None)
    if version is None:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            return "nowhere to be found"
    return str(version)
