"""The bytes made without Feast's SDK are the bytes that Feast makes and reads."""

from datetime import UTC, datetime, timedelta

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from features.feast_layout import (
    PROJECT,
    decode_value,
    encode_entity_key,
    encode_redis_field,
    encode_redis_key,
    encode_redis_time_field,
    encode_timestamp,
    encode_value,
)

ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=40)


def make_entity_key(join_key, entity):
    return EntityKey(join_keys=[join_key], entity_values=[Value(string_val=entity)])


@given(join_key=names, entity=ids)
@example(join_key="customer_id", entity="Zoë Ωμέγα 🙂")
@example(join_key="ip", entity="")
def test_an_entity_key_is_feasts(join_key, entity):
    expected = serialize_entity_key(
        make_entity_key(join_key, entity), entity_key_serialization_version=3
    )
    assert encode_entity_key(join_key, entity) == expected


@given(join_key=names, entity=ids)
def test_a_redis_key_is_feasts(join_key, entity):
    expected = _redis_key(
        PROJECT, make_entity_key(join_key, entity), entity_key_serialization_version=3
    )
    assert encode_redis_key(join_key, entity) == expected


@given(view=names, feature=names)
def test_a_redis_field_is_feasts(view, feature):
    assert encode_redis_field(view, feature) == _mmh3(f"{view}:{feature}")


def test_the_field_of_a_views_time_is_the_one_feast_writes_to():
    assert encode_redis_time_field("customer_events_state") == b"_ts:customer_events_state"


@given(value=st.binary(max_size=400))
@example(value=b"")
@example(value=bytes(127))
@example(value=bytes(128))
@example(value=bytes(1 << 21))
def test_a_value_is_protobufs_both_ways(value):
    message = Value(bytes_val=value).SerializeToString()
    assert encode_value(value) == message
    assert decode_value(message) == value


@pytest.mark.parametrize(
    "message",
    [
        b"",
        Value(string_val="text").SerializeToString(),
        Value(int64_val=7).SerializeToString(),
        Value(bytes_val=b"abc").SerializeToString()[:-1],
        Value(bytes_val=b"abc").SerializeToString() + b"\x00",
        b"\x0a",
        b"\x0a\x80",
    ],
)
def test_what_is_not_one_bytes_value_is_refused(message):
    with pytest.raises(ValueError, match="rebuild"):
        decode_value(message)


@given(microseconds=st.integers(0, 4_102_444_800_000_000))
@example(microseconds=0)
@example(microseconds=1)
@example(microseconds=1_000_000)
def test_an_instant_is_protobufs_timestamp(microseconds):
    expected = Timestamp()
    expected.FromDatetime(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds))
    assert encode_timestamp(microseconds) == expected.SerializeToString()


def test_an_instant_before_1970_is_protobufs_timestamp_too():
    expected = Timestamp(seconds=-2, nanos=999_999_000)
    assert encode_timestamp(-1_000_001) == expected.SerializeToString()
