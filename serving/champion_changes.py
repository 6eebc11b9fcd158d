"""An operator's word becomes another champion: checked before anything moves, and written down.

Every change is one line of ``admin.jsonl``: when, from which version, to which, which rollout it
ended if it was that, and at whose word.
That file is also the lock: whoever changes the champion holds it, from the check to the line, in
whatever worker or process, so its lines are the changes in their order.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from configs.schema import FraudConfig
from serving.server import get_service_folder

logger = logging.getLogger("bentoml.throughline")

AUDIT_FILE = "admin.jsonl"


class Change(NamedTuple):
    """The champion was one version and is another; the same where it already was what was asked.

    ``dropped`` is the rollout that was ended instead, as text.
    """

    before: str | None
    after: str
    dropped: str | None = None

    def describe(self) -> dict[str, str | None]:
        """Return it as JSON has it."""
        dropped = {} if self.dropped is None else {"dropped": self.dropped}
        return {"from": self.before, "to": self.after, **dropped}


def swap_champion(runs: Path, *, version: str, folder: Path, who: str) -> Change:
    """Make a version the champion.

    Args:
        runs: Output folder, with the registry.
        version: Which.
        folder: Where ``admin.jsonl`` is; made if absent.
        who: At whose word, such as a remote address.

    Raises:
        ValueError: If there is no such version, or its artefact does not load and reproduce its
            golden rows; nothing has changed.
    """
    from training.artefact import load_artefact
    from training.promotion import set_alias
    from training.registry import CHAMPION, find_artefact

    with _hold_audit(folder) as audit:
        load_artefact(find_artefact(runs, version), version=version)
        change = Change(set_alias(runs, CHAMPION, version=version), version)
        _write_down(audit, change, action="swap", who=who)
    return change


def roll_back_champion(runs: Path, *, folder: Path, who: str) -> Change:
    """End the rollout, or make the champion before the champion again.

    See ``training.promotion.roll_back``.

    Args:
        runs: Output folder, with the registry.
        folder: Where ``admin.jsonl`` is; made if absent.
        who: At whose word.

    Raises:
        FileNotFoundError: If there is no champion.
        ValueError: If there is nothing to take back, or the artefact of the champion before does
            not load; nothing has changed.
    """
    from training.artefact import load_artefact
    from training.promotion import roll_back

    with _hold_audit(folder) as audit:
        change = Change(*roll_back(runs, check=load_artefact))
        _write_down(audit, change, action="rollback", who=who)
    return change


def run_rollback(config: FraudConfig, *, to: str | None = None) -> dict[str, Any]:
    """Roll back at the word of whoever runs the command.

    Args:
        config: ``runs`` says where the registry is.
        to: The version to make the champion; without it, the last step is taken back.

    Returns:
        ``champion`` (``version`` and ``before``), ``dropped`` (the rollout that was ended instead,
        or ``None``), ``rollout`` (that is under way, ``before`` and ``after``, as text), ``wrote``
        and ``next``.

    Raises:
        FileNotFoundError: If there is no champion.
        ValueError: As for ``roll_back_champion`` or ``swap_champion``.
    """
    from training.registry import get_champion, get_rollout

    before = get_rollout(config.runs)
    folder = get_service_folder(config.runs)
    who = f"{getpass.getuser()} (command)"
    if to is None:
        get_champion(config.runs)  # a folder that has none is the wrong one, and stays as it is
        change = roll_back_champion(config.runs, folder=folder, who=who)
    else:
        change = swap_champion(config.runs, version=to, folder=folder, who=who)
    after = get_rollout(config.runs)
    return {
        "champion": {"version": change.after, "before": change.before},
        "dropped": change.dropped,
        "rollout": {"before": before and str(before), "after": after and str(after)},
        "wrote": [str(folder / AUDIT_FILE)],
        "next": "throughline fraud status",
    }


@contextmanager
def _hold_audit(folder: Path) -> Iterator[IO[bytes]]:
    """Open the audit before anything changes: what cannot be written down is not begun."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / AUDIT_FILE).open("ab", buffering=0) as audit:
        fcntl.flock(audit, fcntl.LOCK_EX)  # released when the file is closed
        yield audit


def _write_down(audit: IO[bytes], change: Change, *, action: str, who: str) -> None:
    line = json.dumps(
        {
            "time": datetime.now(UTC).isoformat(),
            "action": action,
            **change.describe(),
            "who": who,
        }
    )
    logger.info("champion changed: %s", line)
    try:
        audit.write(f"{line}\n".encode())
    except OSError as error:  # the change stands, and the service's log has the line above
        logger.error("the champion's change is not in %s: %s", audit.name, error)  # noqa: TRY400
