from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.load_http import (
    MAX_HEAD_BYTES,
    MAX_KNOWN_HEADS,
    SERIAL_FIELD,
    AnswerReader,
    KnownHeads,
    parse_head,
    render_request,
)

SPELLINGS = st.sampled_from(
    ["Content-Length", "content-length", "CONTENT-LENGTH", "cOnTeNt-LeNgTh"]
)


def feed(reader: AnswerReader, stream: bytes, cuts: list[int]) -> list[tuple[int, bytes, bool]]:
    """Feed a stream cut at the given places; return the answers."""
    places = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(places) if a < b]
    return [answer for piece in pieces if (answer := reader.feed(piece)) is not None]


@given(
    body=st.binary(max_size=200),
    status=st.integers(200, 599).filter(lambda code: code not in (204, 304)),
    name=SPELLINGS,
    spaces=st.sampled_from(["", " ", "  \t"]),
    informational=st.booleans(),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_an_answer_is_read_however_it_is_cut(body, status, name, spaces, informational, cuts):
    before = b"HTTP/1.1 100 Continue\r\n\r\n" if informational else b""
    head = f"HTTP/1.1 {status} Some words\r\nX-A: b\r\n{name}:{spaces}{len(body)}{spaces}\r\n\r\n"
    reader = AnswerReader(KnownHeads())
    for _ in range(2):  # the second finds its head known
        assert feed(reader, before + head.encode() + body, cuts) == [(status, body, True)]


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0", False),
        (b"HTTP/1.1 200 OK\r\nconnection: Upgrade, CLOSE\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0", True),
        (b"HTTP/1.1 200\r\nContent-Length: 0", True),
    ],
)
def test_whether_a_connection_is_kept_follows_version_and_header(head, keeps_alive):
    assert parse_head(head) == (200, 0, keeps_alive)


def test_an_answer_without_a_length_ends_with_the_stream():
    reader = AnswerReader(KnownHeads())
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall of") is None
    assert reader.feed(b" it") is None
    assert reader.finish() == (200, b"all of it", False)


def test_an_answer_that_may_have_no_body_needs_no_length():
    assert AnswerReader(KnownHeads()).feed(b"HTTP/1.1 204 No Content\r\n\r\n") == (204, b"", True)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked answer: not supported"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", "bytes after the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "wrong content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "wrong content-length"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "wrong content-length",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "no HTTP answer"),
        (b"x" * (MAX_HEAD_BYTES + 1), "endless head"),
    ],
)
def test_what_is_no_answer_is_told_in_few_words(stream, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        AnswerReader(KnownHeads()).feed(stream)


def test_a_stream_that_ends_within_an_answer_is_a_closed_connection():
    reader = AnswerReader(KnownHeads())
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    with pytest.raises(ValueError, match=r"^connection closed$"):
        reader.finish()


def test_heads_that_always_differ_do_not_fill_memory():
    known = KnownHeads()
    for number in range(3 * MAX_KNOWN_HEADS):
        assert known[f"HTTP/1.1 200 OK\r\nX: {number}\r\nContent-Length: 3".encode()].length == 3
        assert len(known) <= MAX_KNOWN_HEADS


def test_a_request_is_cut_where_its_number_goes():
    body = b'{"id":"run-' + SERIAL_FIELD + b'","a":1}'
    before, after = render_request(body, host="h:1", path="/p", headers={"X-A": "b"})
    head, _, start = before.partition(b"\r\n\r\n")
    assert after == b'","a":1}'
    assert start == b'{"id":"run-'
    assert head.split(b"\r\n") == [
        b"POST /p HTTP/1.1",
        b"Host: h:1",
        b"Content-Type: application/json",
        b"X-A: b",
        b"Content-Length: %d" % len(body),
    ]


def test_a_body_without_a_number_is_sent_as_it_is():
    before, after = render_request(b"[1]", host="h", path="/")
    assert before.endswith(b"Content-Length: 3\r\n\r\n[1]")
    assert after is None
