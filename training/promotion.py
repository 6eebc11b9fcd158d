"""What serves is moved: a champion made, a rollout begun or ended, either taken back.

Whoever moves holds a lock; who reads (``training.registry``) waits for nobody. A process killed
between two moves leaves a champion with a way back, and no rollout of a version that is champion.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from training.mlflow_client import open_client
from training.registry import (
    CHAMPION,
    MODEL_NAME,
    PREVIOUS,
    ROLLOUT_TAG,
    TAKEN_BACK,
    Alias,
    find_artefact,
    find_version,
    get_champion,
    get_database_path,
    read_rollout_tag,
)
from training.rollout import Rollout


def set_alias(runs: Path, alias: Literal["champion", "challenger"], *, version: str) -> str | None:
    """Point an alias at a version; from then on it is what a running service finds.

    A champion that is replaced is remembered as ``previous``, whoever promotes. A rollout of the
    version that becomes the champion is over.

    Args:
        runs: Output folder.
        alias: Which.
        version: Where to.

    Returns:
        The version the alias pointed at before, or ``None``.
    """
    with _hold_aliases(runs):
        before = find_version(runs, alias)
        if alias == CHAMPION and before is not None and before != version:
            # First, so that a process killed in between leaves no champion without a way back.
            _point(runs, PREVIOUS, version=before)
        _point(runs, alias, version=version)
        if alias == CHAMPION:
            # Last: a process killed in between leaves a rollout of the champion, which is none.
            rollout = read_rollout_tag(runs)
            is_taken_back = rollout.startswith(TAKEN_BACK) and before != version
            if is_taken_back or rollout.split()[:1] == [version]:
                _write_rollout_tag(runs, "")
    return before


def roll_back(runs: Path, *, check: Callable[[Path], object]) -> tuple[str, str, str | None]:
    """End the rollout that is under way; if there is none, make the champion before it again.

    Asking twice changes nothing more: the second time is refused, so that a request that is
    repeated because its answer was lost neither brings the bad model back nor goes back two steps.

    Args:
        runs: Output folder.
        check: Called with the artefact's folder before the champion changes; raises if it is no
            good.

    Returns:
        The version that was the champion, the one that is now, and the rollout that was ended.

    Raises:
        FileNotFoundError: If there is no champion.
        ValueError: If there is nothing to take back, or ``check`` says no.
    """
    with _hold_aliases(runs):
        champion, _ = get_champion(runs)
        rollout = read_rollout_tag(runs)
        before = find_version(runs, PREVIOUS)
        if rollout.startswith(TAKEN_BACK):
            raise ValueError(
                f"the rollout was {rollout}, and version {champion} answers everybody; to go"
                " further back name the version: `throughline fraud rollback --to ...`"
            )
        if rollout and rollout.split()[0] != champion:
            _write_rollout_tag(runs, f"{TAKEN_BACK} {rollout}")
            return champion, champion, rollout
        if before is None or before == champion:
            raise ValueError(f"version {champion} is the champion; there is none to go back to")
        check(find_artefact(runs, before))
        _point(runs, CHAMPION, version=before)
    return champion, before, None


def set_rollout(runs: Path, rollout: Rollout | None) -> None:
    """Have a challenger score in the shadow or answer some customers; ``None`` ends that.

    One value in the registry: whoever reads sees the rollout before, or this one.

    Args:
        runs: Output folder.
        rollout: What a running service does from then on.

    Raises:
        FileNotFoundError: If there is no champion beside whom to roll out.
        ValueError: If there is no such version, it is the champion, or its rollout was taken back
            by ``roll_back``: what somebody stopped must not begin again by itself.
    """
    with _hold_aliases(runs):
        if rollout is None:
            if not read_rollout_tag(runs).startswith(TAKEN_BACK):
                _write_rollout_tag(runs, "")
            return
        champion, _ = get_champion(runs)
        find_artefact(runs, rollout.version)
        if rollout.version == champion:
            raise ValueError(f"version {champion} is the champion; it needs no rollout")
        known = read_rollout_tag(runs)
        if known.startswith(f"{TAKEN_BACK} {rollout.version} "):
            raise ValueError(
                f"the rollout of version {rollout.version} was taken back; train another, or make"
                f" it the champion: `throughline fraud rollback --to {rollout.version}`"
            )
        _write_rollout_tag(runs, str(rollout))


def _point(runs: Path, alias: Alias, *, version: str) -> None:
    open_client(get_database_path(runs)).set_registered_model_alias(MODEL_NAME, alias, version)


def _write_rollout_tag(runs: Path, text: str) -> None:
    if text == read_rollout_tag(runs):
        return
    client = open_client(get_database_path(runs))
    client.set_registered_model_tag(MODEL_NAME, ROLLOUT_TAG, text)


@contextmanager
def _hold_aliases(runs: Path) -> Iterator[None]:
    """Keep other processes and threads from moving an alias or the rollout meanwhile."""
    lock_file = get_database_path(runs).with_name("aliases.lock")
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        yield
