"""The parts of the loop as they are in production: the log, the labels, MLflow, and a training.

Training is handed in, since monitoring knows no problem's training code.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import Any

import pandas as pd

from configs.schema import FraudConfig
from monitoring.fraud import observe
from monitoring.fraud_retraining import Train, judge_challenger
from monitoring.loop_evidence import compare_arms, compare_with_previous
from monitoring.loop_parts import LoopParts
from monitoring.outcome_shares import read_outcome_shares
from monitoring.retrain import GateVerdict
from serving.champion_changes import roll_back_champion, swap_champion
from serving.server import get_service_folder
from training.artefact import Artefact, load_artefact
from training.promotion import set_rollout
from training.registry import (
    PREVIOUS,
    find_artefact,
    find_tagged_version,
    find_version,
    get_champion,
    get_rollout,
)

KEY_TAG = "trigger_key"


def build_parts(train: Train) -> LoopParts:
    """Build the loop's parts.

    Args:
        train: ``train(config, now=, only=, params=, tags=, outcome_shares=)`` registers a
            challenger, as ``run_train`` does.
    """
    return LoopParts(
        observe=observe,
        train=functools.partial(train_challenger, train=train),
        judge=judge_versions,
        get_champion_version=lambda config: get_champion(config.runs)[0],
        get_rollout=lambda config: get_rollout(config.runs),
        set_rollout=lambda config, rollout: set_rollout(config.runs, rollout),
        promote=promote,
        roll_back=roll_back,
        compare_arms=compare_arms,
        compare_with_previous=compare_with_previous,
    )


def train_challenger(config: FraudConfig, now: pd.Timestamp, key: str, *, train: Train) -> str:
    """Return the version registered for a trigger key; train it if there is none.

    The champion's kind of model with the champion's parameters, so that only the data differ. The
    key is a tag of the version from its first instant, so a tick killed after it finds it again.
    """
    known = find_tagged_version(config.runs, KEY_TAG, key)
    if known is not None:
        return known
    spec = _load(config, get_champion(config.runs)[0]).spec
    result: dict[str, Any] = train(
        config,
        now=now,
        only=spec.kind,
        params=dict(spec.parameters),
        tags={KEY_TAG: key},
        outcome_shares=read_outcome_shares(config.runs),
    )
    return str(result["challenger"]["version"])


def judge_versions(
    config: FraudConfig, champion: str, challenger: str, now: pd.Timestamp
) -> GateVerdict:
    """Judge a challenger by the gate; see ``monitoring.fraud_retraining.judge_challenger``."""
    return judge_challenger(
        config, champion=_load(config, champion), challenger=_load(config, challenger), now=now
    )


def promote(config: FraudConfig, version: str, key: str) -> None:
    """Make a version the champion, with a line in the audit of champions."""
    folder = get_service_folder(config.runs)
    swap_champion(config.runs, version=version, folder=folder, who=f"tick ({key})")


def roll_back(config: FraudConfig, version: str, to: str, key: str) -> None:
    """Make ``to`` the champion again where a version is, with a line in the audit.

    The registry's own way back is taken where it leads to ``to``: it forgets the version that it
    leaves. It leads elsewhere if a person went to and fro between two ticks.
    """
    if get_champion(config.runs)[0] != version:
        return
    # A rollout beside a champion that goes would be what is taken back instead of it.
    set_rollout(config.runs, None)
    folder, who = get_service_folder(config.runs), f"tick ({key})"
    if find_version(config.runs, PREVIOUS) == to:
        with suppress(ValueError):  # refused where somebody took a rollout back, before or just now
            roll_back_champion(config.runs, folder=folder, who=who)
    if get_champion(config.runs)[0] != to:
        swap_champion(config.runs, version=to, folder=folder, who=who)


def _load(config: FraudConfig, version: str) -> Artefact:
    return load_artefact(find_artefact(config.runs, version), version=version)
