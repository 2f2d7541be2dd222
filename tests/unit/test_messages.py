"""The messages: what is sent is what arrives, and garbage is only ever one kind of error."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobd.daemon.requests import decode as decode_requests
from jobd.model import messages, orders

REPLIES = messages.Reply.__args__
REQUESTS = messages.Request.__args__
ORDERS = orders.Order.__args__
REPORTS = orders.Report.__args__

DECODERS = {
    "requests": (decode_requests, REQUESTS),
    "replies": (messages.decode_replies, REPLIES),
    "orders": (orders.decode_orders, ORDERS),
    "reports": (orders.decode_reports, REPORTS),
}


def sample(kind: type) -> object:
    """Return a message of this type with the simplest values that its fields allow."""
    schema = msgspec.inspect.type_info(kind)
    assert isinstance(schema, msgspec.inspect.StructType)
    return kind(*[_simplest(field.type) for field in schema.fields])


def _simplest(kind: msgspec.inspect.Type) -> object:
    known: dict[type, object] = {
        msgspec.inspect.IntType: 7,
        msgspec.inspect.StrType: "text",
        msgspec.inspect.BytesType: b"bytes",
        msgspec.inspect.BoolType: True,
        msgspec.inspect.FloatType: 1.5,
        msgspec.inspect.NoneType: None,
        msgspec.inspect.ListType: [],
        msgspec.inspect.DictType: {},
    }
    if isinstance(kind, msgspec.inspect.StructType):
        return kind.cls(*[_simplest(field.type) for field in kind.fields])
    if isinstance(kind, msgspec.inspect.EnumType):
        return next(iter(kind.cls))
    if isinstance(kind, msgspec.inspect.TupleType):
        return tuple(_simplest(item) for item in kind.item_types)
    if isinstance(kind, msgspec.inspect.UnionType):
        return None
    return known[type(kind)]


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, (_, kinds) in DECODERS.items() for kind in kinds]
)
def test_every_message_arrives_as_it_was_sent(name: str, kind: type) -> None:
    """Each type of each direction, through the very decoder that the peer uses."""
    message = sample(kind)
    assert DECODERS[name][0](messages.encode([message])) == [message]


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_one_kind_of_error(name: str, data: bytes) -> None:
    """A malformed frame is dropped, so it must not raise anything else."""
    try:
        found = DECODERS[name][0](data)
    except messages.FrameError:
        return
    assert isinstance(found, list)


def test_tags_are_used_once_in_each_direction() -> None:
    """A tag that meant two messages would be decoded as the wrong one."""
    for _, kinds in DECODERS.values():
        tags = [kind.__struct_config__.tag for kind in kinds]
        assert len(tags) == len(set(tags))
