"""Entities and states become the bytes that Feast's online stores hold, without the SDK.

Writing through Feast costs 50 us a row and reading 350 us a request; most of it goes into making
these bytes. ``tests/unit/test_feast_layout.py`` holds each function to Feast's own.

Source:
    Feast, "Online store format" (docs/specs/online_store_format.md), and
    ``feast/infra/online_stores/{redis,sqlite}.py`` of release 0.67.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import mmh3

PROJECT = "throughline_fraud"
_STRING = 2
"""Feast's number for a string among value types."""
_BYTES_FIELD, _SECONDS_FIELD, _NANOS_FIELD = b"\x0a", b"\x08", b"\x10"
"""Protobuf tags: ``Value.bytes_val``, ``Timestamp.seconds`` and ``Timestamp.nanos``."""


@lru_cache(maxsize=1 << 17)
def encode_entity_key(join_key: str, entity: str) -> bytes:
    """Serialise one string entity key, serialization version 3."""
    key, value = join_key.encode(), entity.encode()
    return b"".join(
        (
            struct.pack("<III", 1, _STRING, len(key)),
            key,
            struct.pack("<II", _STRING, len(value)),
            value,
        )
    )


@lru_cache(maxsize=1 << 17)
def encode_redis_key(join_key: str, entity: str) -> bytes:
    """Return the key of an entity's Redis hash: its entity key and the project."""
    return encode_entity_key(join_key, entity) + PROJECT.encode()


@lru_cache(maxsize=1 << 17)
def decode_redis_key(key: bytes) -> tuple[str, str]:
    """Return the join key and the entity of ``encode_redis_key``.

    >>> decode_redis_key(encode_redis_key("ip", "10.0.0.1"))
    ('ip', '10.0.0.1')
    """
    _, _, length = struct.unpack_from("<III", key)
    _, size = struct.unpack_from("<II", key, 12 + length)
    start = 20 + length
    return key[12 : 12 + length].decode(), key[start : start + size].decode()


def encode_redis_field(view: str, feature: str) -> bytes:
    """Return the field of an entity's Redis hash that holds a feature."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def encode_redis_time_field(view: str) -> bytes:
    """Return the field of an entity's Redis hash that holds a view's event time."""
    return f"_ts:{view}".encode()


def encode_value(value: bytes) -> bytes:
    r"""Wrap bytes as Feast's protobuf ``Value``.

    >>> encode_value(b"ab")
    b'\n\x02ab'
    """
    return encode_value_head(len(value)) + value


@lru_cache(maxsize=1 << 16)
def encode_value_head(length: int) -> bytes:
    """Return what comes before the bytes, ``length`` of them, in ``encode_value``."""
    return _BYTES_FIELD + _encode_varint(length)


def decode_value(message: bytes) -> bytes:
    """Unwrap the bytes of Feast's protobuf ``Value``.

    Raises:
        ValueError: If the message is not one bytes value.

    >>> decode_value(encode_value(b"ab"))
    b'ab'
    """
    header = _predict_header(len(message))
    if not message.startswith(header):
        raise ValueError("the online store holds a value that is not bytes; run `fraud rebuild`")
    return message[len(header) :]


@lru_cache(maxsize=1 << 16)
def _predict_header(length: int) -> bytes:
    """Return what a message of one bytes value, ``length`` bytes long in all, must begin with."""
    for size in range(2, 12):
        header = _BYTES_FIELD + _encode_varint(max(length - size, 0))
        if len(header) == size:
            return header
    raise AssertionError(length)


def encode_timestamp(microseconds: int) -> bytes:
    """Serialise an instant as protobuf's ``Timestamp``; zero fields are left out."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return _encode_seconds(seconds) + (_NANOS_FIELD + _encode_varint(rest * 1000) if rest else b"")


@lru_cache(maxsize=1 << 12)
def _encode_seconds(seconds: int) -> bytes:
    return _SECONDS_FIELD + _encode_varint(seconds) if seconds else b""


def _encode_varint(number: int) -> bytes:
    """Encode an integer in groups of seven bits, lowest first; negative ones in 64 bits."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
