"""Record batches become one file of an Arrow IPC stream, and what is whole of it comes back.

A segment is the schema, then record batches (dictionaries go before them), then the mark of the
end if its process ended in order; any Arrow reader reads it. Each record batch carries, in its own
metadata, the CRC-32 of all bytes since the batch before, so that a reader parses only what was
written: Arrow aborts the process on some damaged batches. A process killed while it wrote leaves
the beginning of a message, which is set aside; any other difference is damage, and an error.

Source: the Arrow columnar format, "IPC Streaming Format" and "Encapsulated message format".
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

SUFFIX = ".arrows"
CONTINUATION = b"\xff\xff\xff\xff"
"""Every message begins with this, at a multiple of ``ALIGNMENT``; its metadata's size follows."""
ALIGNMENT = 8
END = CONTINUATION + bytes(4)
CHECKSUM_MARK = b"crc32:"
NO_CHECKSUM = b"00000000"
"""Stands where the checksum will, for its computation."""


class SegmentWriter:
    """Append record batches to a new file, each in full or not at all.

    Args:
        path: Where to; there must be nothing yet.
        schema: Of every batch.

    Raises:
        OSError: If the file cannot be made.
    """

    def __init__(self, path: Path, *, schema: pa.Schema) -> None:
        self.path = path
        self._size = 0
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._memory = BytesIO()
        self._stream = pa.ipc.new_stream(self._memory, schema)

    def append(self, batch: pa.RecordBatch) -> None:
        """Write a batch; where that fails the file ends with the batch before, for good.

        Raises:
            OSError: If it cannot be written; the writer is then closed.
        """
        mark = CHECKSUM_MARK + NO_CHECKSUM
        self._stream.write_batch(batch, custom_metadata={"checksum": mark})
        with self._memory.getbuffer() as content:
            *_, last = _list_messages(pa.py_buffer(content))
            place = last.find_checksum(content)
            content[place : place + len(NO_CHECKSUM)] = _compute_checksum(content)
        self._write_out()

    def close(self) -> None:
        """Write the mark of the end; a disk too full for it costs no record."""
        self._stream.close()
        try:
            self._write_out()
        except OSError:
            return
        os.close(self._handle)

    def _write_out(self) -> None:
        """Write what Arrow left in memory, or take back what was written and close the file."""
        with self._memory.getbuffer() as content:
            rest = content[:]
            try:
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
            except OSError:
                os.ftruncate(self._handle, self._size)
                os.close(self._handle)
                if not self._size:
                    self.path.unlink()
                raise
            self._size += len(content)
            rest.release()
        self._memory.seek(0)
        self._memory.truncate()


class Segment(NamedTuple):
    """The whole batches of a file, and whether an unfinished one followed them."""

    batches: list[pa.RecordBatch]
    is_truncated: bool


def read_segment(path: Path) -> Segment:
    """Read every whole record batch of a segment, which may be written to meanwhile.

    Args:
        path: Of the file.

    Returns:
        Its batches; none where the first is not whole.

    Raises:
        ValueError: If the file is damaged, or no segment; the message names it.
    """
    raw = path.read_bytes()  # not mapped to memory: a writer may cut the file meanwhile
    content = pa.py_buffer(raw)
    whole = read = 0
    is_dangling = False
    for message in _list_messages(content):
        read = message.end
        is_dangling = message.kind != "record batch" and message.start > 0  # the schema is at 0
        if message.kind == "record batch":
            if not _is_sound(raw[whole:read], message, offset=whole):
                raise _name_damage(path, f"bytes {whole} to {read} are not what was written")
            whole = read
    rest = raw[read:].removeprefix(END)
    if not _is_unfinished(rest):
        raise _name_damage(path, f"byte {len(raw) - len(rest)} begins no message")
    batches = list(pa.ipc.open_stream(content[:whole])) if whole else []
    return Segment(batches, is_truncated=is_dangling or len(rest) > 0)


class _Message(NamedTuple):
    kind: str
    start: int
    metadata_size: int
    end: int

    def find_checksum(self, content: bytes | memoryview, *, offset: int = 0) -> int:
        """Return where in ``content``, which begins at ``offset``, the checksum is; -1 without."""
        start = self.start + len(END) - offset
        place = bytes(content[start : start + self.metadata_size]).find(CHECKSUM_MARK)
        return start + place + len(CHECKSUM_MARK) if place != -1 else -1


def _list_messages(content: pa.Buffer) -> Iterator[_Message]:
    """Walk from message to message up to the mark of the end, or what is no whole message."""
    source = pa.BufferReader(content)
    while True:
        start = source.tell()
        try:
            message = pa.ipc.read_message(source)
        except (EOFError, OSError, pa.ArrowInvalid):
            return
        yield _Message(message.type, start, message.metadata.size, source.tell())


def _is_sound(content: bytes, message: _Message, *, offset: int) -> bool:
    """Tell whether the bytes up to a record batch's end have the checksum it carries."""
    place = message.find_checksum(content, offset=offset)
    if place == -1:
        return False
    checksum = content[place : place + len(NO_CHECKSUM)]
    blank = content[:place] + NO_CHECKSUM + content[place + len(NO_CHECKSUM) :]
    return checksum == _compute_checksum(blank)


def _compute_checksum(content: bytes | memoryview) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()


def _is_unfinished(rest: bytes) -> bool:
    """Tell whether bytes can be what a killed process, or a power cut, left of a message."""
    if not rest.strip(b"\0"):
        return True
    return CONTINUATION.startswith(rest[: len(CONTINUATION)]) and not _holds_message(rest)


def _holds_message(content: bytes) -> bool:
    """Tell whether a whole message begins anywhere after the first byte."""
    position = content.find(CONTINUATION, 1)
    while position != -1:
        if position % ALIGNMENT == 0 and any(_list_messages(pa.py_buffer(content[position:]))):
            return True
        position = content.find(CONTINUATION, position + 1)
    return False


def _name_damage(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is a damaged prediction log ({reason}); move the file away")
