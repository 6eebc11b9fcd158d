"""A fitted model becomes a folder of native files, and a folder becomes a model again, checked.

=====================  ===========================================================================
file                   what it holds
=====================  ===========================================================================
``manifest.json``      sha256 of every other file
``model.json``         kind, inputs in order, vocabularies, calibration, thresholds, window, metrics
``model.txt`` or ...   the model itself (``training.scorers.MODEL_FILES``)
``request_model.txt``  the model of the request alone (``training.request_model``), if there is one
``golden_rows.json``   raw feature rows and the scores they must get, from each model and the rule
``reference.parquet``  recent rows the model was not fitted on, with scores, for monitoring
=====================  ===========================================================================

Invariants: never a pickle; a file is parsed only after its hash was found right, and the bytes
hashed are the bytes parsed; a folder is there whole or not at all; a model that does not reproduce
its golden rows does not load. Loading needs neither torch nor MLflow.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from configs.files import hash_file, write_json
from training.amount_rule import AmountRule
from training.encoding import Floats, encode_features
from training.model_spec import ModelSpec, read_spec
from training.operating_point import Decisions
from training.request_model import RequestModel, load_request_model
from training.scorers import MODEL_FILES, Content, Scorer, list_files, load_scorer

MANIFEST_FILE = "manifest.json"
SPEC_FILE = "model.json"
GOLDEN_FILE = "golden_rows.json"
REFERENCE_FILE = "reference.parquet"
REQUEST_MODEL_FILE = "request_model.txt"
GOLDEN_AMOUNTS = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)
GOLDEN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Artefact:
    """A loaded model: features in, calibrated scores, decisions and reasons out.

    Attributes:
        spec: What it is.
        scorer: Gives its margins.
        version: The registry's name for it.
        request_model: What answers without history; None in models of earlier releases.
    """

    spec: ModelSpec
    scorer: Scorer
    version: str = ""
    request_model: RequestModel | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The model's inputs, in order."""
        return self.spec.encoding.features

    def predict(self, features: pd.DataFrame) -> Floats:
        """Score feature rows.

        Args:
            features: One row per transaction with at least the model's inputs.

        Returns:
            Calibrated probabilities of fraud in [0, 1]. Shape ``(rows,)``.

        Raises:
            ValueError: If an input column is absent or holds text where a number belongs.
        """
        return self.predict_matrix(encode_features(features, encoding=self.spec.encoding))

    def predict_matrix(self, matrix: Floats) -> Floats:
        """Score raw model columns ``(rows, features)``; see ``predict``."""
        return self.spec.calibration.apply(self.scorer.margins(matrix))

    @property
    def rule(self) -> AmountRule | None:
        """What answers without any model; None in models of earlier releases."""
        return self.spec.fallback.rule if self.spec.fallback is not None else None

    def predict_request(self, matrix: Floats) -> Floats:
        """Score raw model columns ``(rows, features)`` of which only the request's are read.

        Returns:
            Calibrated probabilities of the request model. Shape ``(rows,)``.

        Raises:
            ValueError: If the model was trained before there were fallbacks.
        """
        return self._need_request_model().predict(matrix)

    def decide_request(self, scores: Floats, amounts: Floats) -> Decisions:
        """Say what follows from each of ``predict_request``'s scores and amount.

        Raises:
            ValueError: If the model was trained before there were fallbacks.
        """
        return self._need_request_model().decide(scores, amounts)

    def _need_request_model(self) -> RequestModel:
        if self.request_model is None:
            raise ValueError(
                "this model has no request model; run `throughline fraud train` for one that has"
            )
        return self.request_model

    def decide(self, scores: Floats, amounts: Floats) -> Decisions:
        """Say ``approve``, ``review`` or ``decline`` for each score and amount."""
        return self.spec.thresholds.decide(scores, amounts)

    def explain(self, features: pd.DataFrame, *, top: int) -> list[list[tuple[str, float]]]:
        """Name the features that moved each row's score most.

        Args:
            features: One row per transaction with at least the model's inputs.
            top: How many features to name per row.

        Returns:
            For each row ``(feature, contribution)``, largest first; a contribution is in log-odds
            before calibration, positive towards fraud.
        """
        return self.explain_matrix(encode_features(features, encoding=self.spec.encoding), top=top)

    def explain_matrix(self, matrix: Floats, *, top: int) -> list[list[tuple[str, float]]]:
        """Explain raw model columns ``(rows, features)``; see ``explain``."""
        return [
            [(self.features[i], float(row[i])) for i in np.argsort(-np.abs(row))[:top]]
            for row in self.scorer.contributions(matrix)
        ]


def save_artefact(
    folder: Path,
    *,
    spec: ModelSpec,
    content: Content,
    golden_features: pd.DataFrame,
    reference_features: pd.DataFrame,
    request_content: bytes | None = None,
) -> None:
    """Write a model's folder; an earlier one in its place is replaced, or stays if this fails.

    Args:
        folder: Where to.
        spec: What the model is.
        content: The model's file, or its files by name.
        golden_features: Some feature rows, to score at every loading.
        reference_features: Feature rows with ``event_time``; their scores are added.
        request_content: The request model's bytes; there if, and only if, the spec has a fallback.
    """
    assert (request_content is None) == (spec.fallback is None), "a fallback is whole or absent"
    artefact = _assemble(spec, content, request_content)
    rows = golden_features[list(artefact.features)]
    scores = artefact.predict(reference_features)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        part = Path(name) / "artefact"
        part.mkdir()
        write_json(part / SPEC_FILE, spec.to_document())
        for file, data in list_files(spec.kind, content).items():
            (part / file).write_bytes(data)
        if request_content is not None:
            (part / REQUEST_MODEL_FILE).write_bytes(request_content)
        golden = {name: scores.tolist() for name, scores in _score_golden(artefact, rows).items()}
        write_json(part / GOLDEN_FILE, {"rows": _to_records(rows), **golden})
        kept = reference_features[["event_time", *artefact.features]]
        kept.assign(score=scores).to_parquet(part / REFERENCE_FILE, index=False)
        hashes = {path.name: hash_file(path) for path in sorted(part.iterdir())}
        write_json(part / MANIFEST_FILE, {"sha256": hashes})
        load_artefact(part)
        if folder.exists():
            folder.rename(Path(name) / "replaced")
        shutil.move(part, folder)


def load_artefact(folder: Path, *, version: str = "") -> Artefact:
    """Load a model's folder after checking every file, then its golden rows.

    Args:
        folder: Written by ``save_artefact``.
        version: The registry's name for it.

    Returns:
        The model.

    Raises:
        ValueError: If a file is missing or changed, the kind is unknown, or a golden row does not
            get its score; the message names the file.
    """
    checked = _read_checked(folder)
    spec = read_spec(json.loads(_take(checked, SPEC_FILE, folder=folder)))
    if spec.kind not in MODEL_FILES:
        raise ValueError(
            f"{folder / SPEC_FILE} names the unknown kind of model '{spec.kind}'; "
            f"it must be one of: {', '.join(MODEL_FILES)}"
        )
    content = {name: _take(checked, name, folder=folder) for name in MODEL_FILES[spec.kind]}
    request_content = None
    if spec.fallback is not None:
        request_content = _take(checked, REQUEST_MODEL_FILE, folder=folder)
    artefact = _assemble(spec, content, request_content, version=version)
    _check_golden_rows(artefact, _take(checked, GOLDEN_FILE, folder=folder), folder=folder)
    return artefact


def load_reference(folder: Path) -> pd.DataFrame:
    """Read the rows a model's predictions are held against by monitoring.

    Args:
        folder: Written by ``save_artefact``.

    Returns:
        ``event_time``, the model's inputs and ``score``, in time order.

    Raises:
        ValueError: If a file is missing or changed.
    """
    content = _take(_read_checked(folder), REFERENCE_FILE, folder=folder)
    return pd.read_parquet(BytesIO(content))


def _read_checked(folder: Path) -> dict[str, bytes]:
    """Read every file of the manifest and check its hash."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ValueError(f"{path} is missing; run `throughline fraud train` to make a model")
    try:
        hashes = json.loads(path.read_bytes())["sha256"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a manifest: {error!r}") from error
    checked = {}
    for name, expected in hashes.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; the model's folder is incomplete")
        checked[name] = (folder / name).read_bytes()
        if hashlib.sha256(checked[name]).hexdigest() != expected:
            raise ValueError(f"{folder / name} has changed since it was written; do not use it")
    return checked


def _take(checked: Mapping[str, bytes], name: str, *, folder: Path) -> bytes:
    if name not in checked:
        raise ValueError(f"{folder / MANIFEST_FILE} does not list {name}; the folder is incomplete")
    return checked[name]


def _assemble(
    spec: ModelSpec, content: Content, request_content: bytes | None, *, version: str = ""
) -> Artefact:
    request_model = None
    if spec.fallback is not None and request_content is not None:
        request_model = load_request_model(
            spec.fallback, request_content, features=spec.encoding.features
        )
    return Artefact(spec, load_scorer(spec.kind, content), version, request_model)


def _score_golden(artefact: Artefact, rows: pd.DataFrame) -> dict[str, Floats]:
    """Score golden rows by every part of an artefact, and ``GOLDEN_AMOUNTS`` by the rule."""
    found = {"scores": artefact.predict(rows)}
    if artefact.request_model is not None:
        matrix = encode_features(rows, encoding=artefact.spec.encoding)
        found["request_scores"] = artefact.predict_request(matrix)
    if artefact.rule is not None:
        found["rule_scores"] = artefact.rule.scores(np.array(GOLDEN_AMOUNTS))
    return found


def _check_golden_rows(artefact: Artefact, content: bytes, *, folder: Path) -> None:
    golden = json.loads(content)
    rows = pd.DataFrame(golden["rows"], columns=list(artefact.features))
    files = {
        "scores": " or ".join(MODEL_FILES[artefact.spec.kind]),
        "request_scores": REQUEST_MODEL_FILE,
        "rule_scores": f"{SPEC_FILE} (its rule)",
    }
    for name, scores in _score_golden(artefact, rows).items():
        distance = float(np.max(np.abs(scores - np.array(golden[name])), initial=0.0))
        if not distance <= GOLDEN_TOLERANCE:
            raise ValueError(
                f"{folder / files[name]} scores a row of {GOLDEN_FILE} "
                f"{distance:.2g} away from what it did when trained; do not use it"
            )


def _to_records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one JSON object per row; missing values of any kind are null."""
    as_objects = rows.astype(object)
    known = as_objects.where(rows.notna(), None)
    return [dict(zip(rows.columns, row, strict=True)) for row in known.to_numpy()]
