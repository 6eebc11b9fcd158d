"""Further versions of a world's champion, known by their scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from configs.schema import FraudConfig
from training.artefact import load_artefact, save_artefact
from training.registration import RunRecord, log_run, register
from training.registry import ARTEFACT_FOLDER, get_champion


def make_version(config: FraudConfig, folder: Path, *, shift: float) -> str:
    """Register the champion's twin whose log-odds are shifted; return its version."""
    _, source = get_champion(config.runs)
    original = load_artefact(source)
    rows = pd.DataFrame(
        json.loads((source / "golden_rows.json").read_text())["rows"],
        columns=list(original.features),
    )
    spec = replace(
        original.spec,
        calibration=replace(
            original.spec.calibration, offset=original.spec.calibration.offset + shift
        ),
    )
    save_artefact(
        folder / ARTEFACT_FOLDER,
        spec=spec,
        content=(source / "model.txt").read_bytes(),
        golden_features=rows,
        reference_features=rows.assign(event_time=pd.Timestamp("2026-01-01", tz="UTC")),
        request_content=(source / "request_model.txt").read_bytes(),
    )
    run_id = log_run(
        config.runs,
        RunRecord(name="twin"),
        artefact=folder / ARTEFACT_FOLDER,
        encoding=original.spec.encoding,
    )
    return register(config.runs, run_id)
