"""Judged models become artefacts, pictures, MLflow runs and a registered version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import read_json
from configs.progress import show_progress
from configs.schema import FraudConfig
from training.artefact import SPEC_FILE, save_artefact
from training.fraud_judging import Judged, Judgement
from training.fraud_material import Material
from training.fraud_prices import read_prices
from training.model_spec import ModelSpec
from training.promotion import set_alias
from training.registration import RunRecord, log_run, register
from training.registry import CHALLENGER, CHAMPION, find_version, get_model
from training.report import draw_candidate, trace_candidate, trace_comparison, write_report
from training.request_model import FallbackSpec

MAX_REFERENCE_ROWS = 20_000
NUM_GOLDEN_ROWS = 32

Pictures = dict[str, dict[str, str]]


def get_artefact_folder(folder: Path, kind: str) -> Path:
    """Return where a training run's own copy of a model is; MLflow holds another."""
    return folder / "models" / kind


def write_artefacts(
    folder: Path, judgement: Judgement, material: Material, *, seed: int
) -> list[Path]:
    """Write each model's artefact.

    Args:
        folder: Of this training run.
        judgement: The models.
        material: What they were trained on.
        seed: Of the reference sample.

    Returns:
        The artefacts' folders.
    """
    wrote = []
    for item in judgement.judged:
        wrote.append(get_artefact_folder(folder, item.kind))
        save_artefact(
            wrote[-1],
            spec=_specify(item, material, fallback=judgement.fallback.spec),
            content=item.candidate.content,
            request_content=judgement.fallback.content,
            golden_features=_choose_golden_rows(material),
            reference_features=_sample_reference(material, seed=seed),
        )
    return wrote


def write_curves(
    folder: Path, judgement: Judgement, material: Material, *, config: FraudConfig
) -> tuple[list[Path], Pictures]:
    """Write the run's curves and the pictures a page shows.

    Returns:
        What was written, and every model's pictures by kind and name.
    """
    curves = {
        item.kind: trace_candidate(
            item.candidate,
            material.test,
            thresholds=item.thresholds,
            prices=read_prices(config),
        )
        for item in judgement.judged
    }
    pictures = {kind: draw_candidate(kind, traced) for kind, traced in curves.items()}
    wrote = write_report(
        folder,
        comparison=trace_comparison(material.test, judgement.scores),
        candidates=curves,
        pictures=pictures,
        winner=judgement.best.kind,
    )
    return wrote, pictures


def register_models(
    folder: Path,
    judgement: Judgement,
    material: Material,
    *,
    pictures: Pictures,
    config: FraudConfig,
    tags: Mapping[str, str] | None = None,
) -> dict[str, dict[str, str] | None]:
    """Log every model; register the best, as champion where there is none, else as challenger.

    Args:
        folder: Where ``write_artefacts`` wrote.
        judgement: The models, best first.
        material: What they were trained on.
        pictures: From ``write_curves``.
        config: Where ``runs`` is.
        tags: Of the version registered.

    Returns:
        ``champion`` and ``challenger``: ``name`` (the kind) and ``version``, or ``None``.
    """
    run_ids = []
    with show_progress("Writing to MLflow", total=len(judgement.judged)) as advance:
        for item in judgement.judged:
            run_ids.append(
                log_run(
                    config.runs,
                    _describe(item, material, pictures[item.kind]),
                    artefact=get_artefact_folder(folder, item.kind),
                    encoding=material.training.encoding,
                )
            )
            advance(1)
        best = {
            "name": judgement.best.kind,
            "version": register(config.runs, run_ids[0], tags=tags),
        }
    if find_version(config.runs, CHAMPION) is None:
        set_alias(config.runs, CHAMPION, version=best["version"])
        return {"champion": best, "challenger": None}
    set_alias(config.runs, CHALLENGER, version=best["version"])
    version, place = get_model(config.runs, CHAMPION)
    champion = {"name": str(read_json(place / SPEC_FILE)["kind"]), "version": version}
    return {"champion": champion, "challenger": best}


def _specify(item: Judged, material: Material, *, fallback: FallbackSpec) -> ModelSpec:
    encoding, train = material.training.encoding, material.split.train
    return ModelSpec(
        kind=item.kind,
        encoding=encoding,
        calibration=item.candidate.calibration,
        thresholds=item.thresholds,
        request_features=tuple(n for n in encoding.features if n in material.request_features),
        train_start_time=train.start_time.isoformat(),
        train_end_time=train.end_time.isoformat(),
        data_hash=material.data_hash,
        metrics=item.metrics,
        parameters=item.candidate.parameters,
        fallback=fallback,
    )


def _choose_golden_rows(material: Material) -> pd.DataFrame:
    """Take rows spread over the whole period, and one of which nothing is known."""
    features = material.features
    spread = np.linspace(0, len(features) - 1, NUM_GOLDEN_ROWS).astype(int)
    rows = features.iloc[spread][list(material.training.encoding.features)].astype(object)
    nothing = pd.DataFrame([[None] * rows.shape[1]], columns=rows.columns, dtype=object)
    return pd.concat([rows, nothing], ignore_index=True)


def _sample_reference(material: Material, *, seed: int) -> pd.DataFrame:
    """Take recent rows the model was not fitted on, so that their scores are as when serving."""
    recent = material.features[
        material.features["event_time"] >= material.split.calibration.start_time
    ]
    return recent.sample(min(len(recent), MAX_REFERENCE_ROWS), random_state=seed).sort_index()


def _describe(item: Judged, material: Material, pictures: dict[str, str]) -> RunRecord:
    """Say what MLflow should keep of a model."""
    numbers: dict[str, Any] = {**item.tabulate(), **item.decisions}
    encoding, train = material.training.encoding, material.split.train
    return RunRecord(
        name=item.kind,
        parameters={
            **item.candidate.parameters,
            "train_start_time": train.start_time.isoformat(),
            "train_end_time": train.end_time.isoformat(),
            "data_hash": material.data_hash,
            "num_features": len(encoding.features),
        },
        metrics={name: v for name, v in numbers.items() if isinstance(v, int | float)},
        curves=item.candidate.curves,
        pictures=pictures,
        documents={
            "features": {"features": list(encoding.features), "dropped": material.dropped},
            "evaluation": {"patterns": item.patterns, "slices": item.slices},
            "split": material.split.describe(),
        },
        tags={"kind": item.kind},
    )
