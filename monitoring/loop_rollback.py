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

FOLLOWS = "; a running service follows at its next look (serving.model_poll_seconds)"


def record_rollback(config: FraudConfig, result: Mapping[str, Any], *, who: str) -> str | None:
    """Write down a rollback, and end the attempts it decides; a tick at work is not waited for.

    Args:
        config: The fraud problem's configuration.
        result: Of ``serving.champion_changes.run_rollback``.
        who: At whose word.

    Returns:
        Why it is not on record although there is a loop; ``None`` if it is, there is none, or
        nothing moved. The
        rollback stands either way, and the next tick will notice it by itself.
    """
    champion = result["champion"]
    if result["dropped"] is None and champion["before"] == champion["version"]:
        return None  # nothing was taken back
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
        ``served_before``, ``serves_now`` and ``done``; ``note`` where a rollout goes on,
        ``unrecorded`` where the loop's record lacks it.
    """
    champion, rollout = result["champion"], result["rollout"]
    facts = {
        "served_before": _name_serving(champion["before"], rollout["before"]),
        "serves_now": _name_serving(champion["version"], rollout["after"]),
    }
    if result["dropped"] is not None:
        version = parse_rollout(result["dropped"]).version
        facts["done"] = f"the rollout of version {version} is ended, the champion stays{FOLLOWS}"
    elif champion["before"] == champion["version"]:
        facts["done"] = f"nothing: version {champion['version']} was the champion already"
    else:
        facts["done"] = f"version {champion['version']} is the champion instead{FOLLOWS}"
    if rollout["after"] is not None:
        facts["note"] = (
            "the rollout goes on; the loop's next tick ends it, or `throughline fraud rollback`"
        )
    if result["unrecorded"] is not None:
        facts["unrecorded"] = (
            f"the loop's record lacks it ({result['unrecorded']}); the next tick sees it by itself"
        )
    return facts


def _name_serving(champion: str | None, rollout: str | None) -> str:
    """Name who answers, and who beside it."""
    name = "none" if champion is None else f"version {champion}"
    if rollout is None:
        return name
    beside = parse_rollout(rollout)
    stage = "shadow" if beside.stage == "shadow" else f"canary of {beside.share:.0%}"
    return f"{name}, with version {beside.version} in the {stage}"


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
