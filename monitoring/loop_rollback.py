"""What a person took back becomes a step in the loop's record, if there is a loop, and words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sqlalchemy.exc import SQLAlchemyError

from configs.schema import FraudConfig
from monitoring.loop_records import OPEN, Attempt, Change
from monitoring.loop_store import LoopStore
from monitoring.loop_tables import get_database_path, get_database_url, open_database
from training.rollout import parse_rollout


def record_rollback(config: FraudConfig, result: Mapping[str, Any], *, who: str) -> str | None:
    """Write down a rollback, and end the attempts it decides; a tick at work is not waited for.

    Args:
        config: The fraud problem's configuration.
        result: Of ``serving.champion_changes.run_rollback``.
        who: At whose word.

    Returns:
        Why it is not on record although there is a loop; ``None`` if it is, or there is none. The
        rollback stands either way, and the next tick will notice it by itself.
    """
    url = config.retraining.database_url
    if url is None and not get_database_path(config.runs).is_file():
        return None
    try:
        with open_database(get_database_url(config.runs, url)) as engine:
            _record(LoopStore(engine), result, who=who)
    except (SQLAlchemyError, RuntimeError) as error:
        return " ".join(str(error).split())
    return None


def explain_rollback(result: Mapping[str, Any]) -> dict[str, str]:
    """Say what a rollback did, for a terminal.

    Args:
        result: Of ``serving.champion_changes.run_rollback``, with ``unrecorded`` of
            ``record_rollback``.

    Returns:
        ``served_before``, ``serves_now`` and ``done``; ``note`` where the loop's record lacks it.
    """
    champion = result["champion"]
    before, after = (champion[name] for name in ("before", "version"))
    facts = {
        "served_before": "none" if before is None else f"version {before}",
        "serves_now": f"version {after}",
        "done": f"version {after} is the champion instead; a running service follows within 2 s",
    }
    if result["dropped"] is not None:
        dropped = parse_rollout(result["dropped"])
        stage = "shadow" if dropped.stage == "shadow" else f"canary of {dropped.share:.0%}"
        facts["served_before"] += f", with version {dropped.version} in the {stage}"
        facts["serves_now"] += ", alone"
        facts["done"] = (
            f"the rollout of version {dropped.version} is ended, the champion stays; "
            "a running service follows within 2 s"
        )
    elif before == after:
        facts["done"] = f"nothing: version {after} was the champion already"
    if result["unrecorded"] is not None:
        facts["note"] = (
            f"the loop's record lacks it ({result['unrecorded']}); the next tick sees it by itself"
        )
    return facts


def _record(store: LoopStore, result: Mapping[str, Any], *, who: str) -> None:
    under_way = [item for item in store.load_attempts() if item.state in OPEN]
    store.record_manual(
        Change("superseded", (_describe(result),), {}, who=who),
        attempts=[item for item in under_way if _is_decided(item, result)],
        now=store.find_last_tick() or pd.Timestamp.now("UTC"),
    )


def _is_decided(attempt: Attempt, result: Mapping[str, Any]) -> bool:
    """Whether a rollback leaves an attempt nothing to find out."""
    if result["dropped"] is not None:
        return attempt.challenger == str(result["dropped"]).split()[0]
    return bool(result["champion"]["version"] != result["champion"]["before"])


def _describe(result: Mapping[str, Any]) -> str:
    if result["dropped"] is not None:
        return f"the rollout '{result['dropped']}' was ended by hand"
    champion = result["champion"]
    return f"version {champion['version']} replaced {champion['before']} by hand"
