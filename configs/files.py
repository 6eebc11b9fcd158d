"""Files appear whole or not at all: every result is written beside its place and moved there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; move it to ``path`` when the block ends well.

    A reader never sees half a file, and a block that raises (Ctrl-C included) leaves ``path`` as
    it was and the temporary file removed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with write_whole(folder / "a.txt") as part:
    ...     _ = part.write_text("all of it")
    >>> sorted(item.name for item in folder.iterdir())
    ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def write_folder_whole(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; move it to ``folder`` when the block ends well.

    Args:
        folder: Where the files go; it must not exist yet, or be empty.

    Yields:
        The temporary folder, beside ``folder``; removed if the block raises (Ctrl-C included).

    Raises:
        ValueError: If ``folder`` holds something: nothing of a user's is removed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder; remove it or name another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield part
        part.chmod(0o755)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_free_space(folder: Path, num_bytes: int) -> None:
    """Raise ``OSError`` if the disk of ``folder``, which need not exist yet, has less room."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise OSError(
            f"{existing} has {free / 1e9:.1f} GB free and {num_bytes / 1e9:.1f} GB may be needed; "
            "make room or name a folder on another disk"
        )


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` as indented JSON; NaN and infinity are refused, since JSON has neither."""
    with write_whole(path) as part:
        part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, naming the file when it is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(document).__name__}")
    return document


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
