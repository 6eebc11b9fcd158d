"""A runs folder, or nothing at all, becomes trees, a network and rows to time them on.

What an engine takes depends on the number of features and the size of the model, not on what it
learnt; so where no model was trained, one is, on invented rows, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.artefact import load_artefact, load_reference
from training.encoding import Booleans, Encoding, Floats, encode_features
from training.gbdt import STARTING_PARAMETERS, fit_trees
from training.neural import NetworkSettings, fit_network
from training.registry import find_version, get_champion
from training.scorers import MODEL_FILES

NUM_ROWS = 20_000
FEATURES = (*(f"number_{position}" for position in range(37)), "card", "hour", "country")
VOCABULARIES = {"card": 3, "hour": 24, "country": 60}
FRAUD_SHARE = 0.02
NUM_TREES = 200
MAX_EPOCHS = 4


@dataclass(frozen=True)
class TimedModels:
    """Two models of the same inputs, and rows for both.

    Attributes:
        trees: LightGBM's text format.
        network: ``training.onnx_graph``'s ONNX file.
        matrix: Raw model columns. Shape ``(rows, features)``.
        source: Where they are from, for a person.
    """

    trees: bytes
    network: bytes
    matrix: Floats
    source: str


def prepare_models(runs: Path | None, *, seed: int) -> TimedModels:
    """Take a folder's champion and its reference rows, or invent rows; fit what is missing.

    Args:
        runs: Output folder of ``throughline fraud train``; ``None`` or one without a champion for
            invented rows of 40 features.
        seed: Of the rows and the fits.
    """
    if runs is None or find_version(runs, "champion") is None:
        encoding, matrix = _invent_rows(seed=seed)
        is_fraud = _mark_riskiest(np.nansum(matrix[:, :5], axis=1))
        return TimedModels(
            _fit_trees(matrix, is_fraud, encoding=encoding, seed=seed),
            _fit_network(matrix, is_fraud, encoding=encoding, seed=seed),
            matrix,
            f"fitted on {len(matrix):,} invented rows of {matrix.shape[1]} features",
        )
    version, folder = get_champion(runs)
    artefact, reference = load_artefact(folder, version=version), load_reference(folder)
    encoding = artefact.spec.encoding
    matrix = encode_features(reference, encoding=encoding)
    is_fraud = _mark_riskiest(reference["score"].to_numpy())
    files = MODEL_FILES[artefact.spec.kind]
    is_trees, is_network = ("model.txt" in files), ("model.onnx" in files)
    return TimedModels(
        (folder / "model.txt").read_bytes()
        if is_trees
        else _fit_trees(matrix, is_fraud, encoding=encoding, seed=seed),
        (folder / "model.onnx").read_bytes()
        if is_network
        else _fit_network(matrix, is_fraud, encoding=encoding, seed=seed),
        matrix,
        f"champion {version} of {runs} ({artefact.spec.kind}); the other model fitted on its "
        f"{len(matrix):,} reference rows",
    )


def _invent_rows(*, seed: int) -> tuple[Encoding, Floats]:
    """Draw numbers over decades, a tenth of them missing, and categories."""
    generator = np.random.default_rng(seed)
    shape = (NUM_ROWS, len(FEATURES) - len(VOCABULARIES))
    numbers = generator.lognormal(1.0, 1.5, shape)
    numbers[generator.random(shape) < 0.1] = np.nan
    codes = [generator.integers(0, size, NUM_ROWS) for size in VOCABULARIES.values()]
    vocabularies = {
        name: tuple(f"{name}_{code:02}" for code in range(size))
        for name, size in VOCABULARIES.items()
    }
    return Encoding(FEATURES, vocabularies), np.column_stack([numbers, *codes])


def _mark_riskiest(scores: Floats) -> Booleans:
    """Call the rows with the highest scores frauds: something to fit, whatever the rows are."""
    return np.asarray(scores >= np.quantile(scores, 1.0 - FRAUD_SHARE))


def _fit_trees(matrix: Floats, is_fraud: Booleans, *, encoding: Encoding, seed: int) -> bytes:
    parameters = {**STARTING_PARAMETERS, "num_trees": NUM_TREES}
    return fit_trees(matrix, is_fraud, encoding=encoding, parameters=parameters, seed=seed)


def _fit_network(matrix: Floats, is_fraud: Booleans, *, encoding: Encoding, seed: int) -> bytes:
    settings = NetworkSettings(max_epochs=MAX_EPOCHS, seed=seed)
    return fit_network(matrix, is_fraud, encoding=encoding, settings=settings).content
