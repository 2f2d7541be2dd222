"""What a job returns, made ready to travel."""

from __future__ import annotations

from jobd import payload
from jobd.blobs import Spot
from jobd.model.errors import (
    DiskFull,
    PayloadNotStored,
    PayloadTooLarge,
    ResultNotSerialisable,
    ResultNotStored,
    ResultTooLarge,
)
from jobd.pool.failure import safe_repr


def encode_result(
    value: object,
    most_bytes: int,
    *,
    as_json: bool,
    what: str = "its result",
    spot: Spot | None = None,
) -> bytes:
    """Encode what a job returns, or yields; ``what`` names it in errors.

    Raises:
        ResultNotSerialisable: it cannot travel.
        ResultTooLarge: it is over ``most_bytes``, or over what can be encoded at all.
        ResultNotStored: the file that it should go to cannot be written.
    """
    try:
        data = payload.encode(value, shown_as=safe_repr, lossy=as_json, spot=spot)
    except payload.Unencodable as error:
        failed = ResultNotSerialisable(f"{what} cannot travel: {error}")
        if error.__cause__ is not None:
            failed.original = payload.pickle_exception(error.__cause__)
        raise failed from None
    except PayloadTooLarge as error:
        raise ResultTooLarge(f"{what} is too large: {error.message}") from None
    except (DiskFull, PayloadNotStored) as error:
        raise ResultNotStored(f"{what} cannot be stored: {error}") from None
    if len(data) > most_bytes:
        raise ResultTooLarge(
            f"{what} has {len(data)} bytes, over the limit of "
            f"{most_bytes} (limits.max_payload_bytes)"
        )
    return data
