"""A valid body becomes thousands of bodies that are a little, or entirely, wrong; seeded."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]
ODD_VALUES = (
    "null",
    "true",
    "[]",
    "{}",
    '""',
    '"x"',
    "-1",
    "0",
    "-0.0",
    "1e308",
    "1e400",
    "-1e400",
    "9" * 400,
    "1" + "0" * 30 + ".5",
    "NaN",
    "Infinity",
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"' + "y" * 3000 + '"',
    '"2026-02-30T00:00:00Z"',
    '"2026-01-01T00:00:00"',
    '"0001-01-01T00:00:00Z"',
    '"9999-12-31T23:59:59-23:59"',
    '"2026-01-01T00:00:60+99:99"',
    '{"a": {"a": {"a": 1}}}',
    '{"\\ud800": 1}',
    "[" * 500 + "]" * 500,
)


def flip_bytes(body: bytes, generator: random.Random) -> bytes:
    """Change one to four bytes into any others."""
    changed = bytearray(body)
    for _ in range(generator.randint(1, 4)):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    return bytes(changed)


def truncate(body: bytes, generator: random.Random) -> bytes:
    """Cut the end off."""
    return body[: generator.randrange(len(body))]


def insert_bytes(body: bytes, generator: random.Random) -> bytes:
    """Put up to eight bytes in between."""
    at = generator.randrange(len(body))
    return body[:at] + generator.randbytes(generator.randint(1, 8)) + body[at:]


def remove_field(body: bytes, generator: random.Random) -> bytes:
    """Leave a field out."""
    return _edit(body, lambda fields: fields.pop(generator.choice(sorted(fields))))


def replace_value(body: bytes, generator: random.Random) -> bytes:
    """Give a field an odd value, of the wrong type, range or length."""
    return _put(body, lambda fields: generator.choice(sorted(fields)), generator)


def add_field(body: bytes, generator: random.Random) -> bytes:
    """Add a field that does not exist, or a pass-through column."""
    name = generator.choice(["unheard_of", "extra", "", "\ud800", "amount ", "x" * 500])
    return _put(body, lambda _fields: name, generator)


def repeat_field(body: bytes, generator: random.Random) -> bytes:
    """Say a field twice, the second time otherwise."""
    name = generator.choice(["amount", "customer_id", "transaction_id", "event_time"])
    end = body.rindex(b"}")
    return body[:end] + f', "{name}": {generator.choice(ODD_VALUES)}'.encode() + body[end:]


def nest(body: bytes, generator: random.Random) -> bytes:
    """Wrap the body, as deep as a hundred thousand times."""
    depth = generator.choice([1, 2, 50, 1000, 100_000])
    opening, closing = generator.choice([(b"[", b"]"), (b'{"extra":', b"}")])
    return opening * depth + body + closing * depth


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bytes,
    truncate,
    insert_bytes,
    remove_field,
    replace_value,
    add_field,
    repeat_field,
    nest,
)


def _edit(body: bytes, change: Callable[[Document], object]) -> bytes:
    """Change the first transaction of a body, and the body if it is none but holds some."""
    document = json.loads(body)
    change(document["transactions"][0] if "transactions" in document else document)
    return json.dumps(document).encode()


def _put(body: bytes, choose: Callable[[Document], str], generator: random.Random) -> bytes:
    """Put a literal, which need not be JSON, where a field's value stands."""
    literal = generator.choice(ODD_VALUES)

    def put(fields: Document) -> None:
        fields[choose(fields)] = "LITERAL"

    return _edit(body, put).replace(b'"LITERAL"', literal.encode(), 1)
