"""A submit with code in it, for workers of another Python than this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from jobd import by_value
from jobd.model.blob import reference_in
from jobd.model.errors import UsageError
from jobd.model.messages import Apply, Put, Submit

if TYPE_CHECKING:
    from jobd.blobs import Blobs

HERE = by_value.written(by_value.VERSION)


def refuse_code(request: Submit | Put | Apply, workers: str, blobs: Blobs | None) -> None:
    """Refuse what travels by value, since the workers have another version of Python: it kills them.

    Raises:
        UsageError: there is some, in a function, an argument or a value.
    """
    made = by_value.made_by(_pieces(_payloads(request), blobs))
    if made is not None:
        major, minor = map(int, workers.split("."))
        raise UsageError(*by_value.refusal(made, (major, minor)))


def _payloads(request: Submit | Put | Apply) -> list[bytes]:
    if isinstance(request, Put):
        return [request.value]
    submits = request.jobs if isinstance(request, Apply) else [request]
    return [data for submit in submits for data in submit.args]


def _pieces(payloads: Iterable[bytes], blobs: Blobs | None) -> Iterator[bytes | memoryview]:
    """Yield payloads, and what is in the files that they refer to."""
    for data in payloads:
        yield data
        reference = reference_in(data)
        if reference and blobs is not None:
            yield blobs.read(reference).payload
