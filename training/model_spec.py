"""What a model is beside its weights, and its JSON form: the artefact's ``model.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.calibration import Calibration
from training.encoding import Encoding
from training.operating_point import Thresholds
from training.request_model import FallbackSpec, read_fallback_spec


@dataclass(frozen=True)
class ModelSpec:
    """What a model is, beside its weights.

    Attributes:
        kind: A key of ``MODEL_FILES``.
        encoding: Inputs in order, and vocabularies.
        calibration: From margin to probability.
        thresholds: From probability to decision.
        request_features: Inputs that need no history, only the transaction itself.
        train_start_time: First instant of the training slice, ISO 8601.
        train_end_time: Its end.
        data_hash: sha256 of the transactions and labels.
        metrics: On the test period, by name.
        parameters: What it was fitted with; fits the same kind again.
        fallback: What answers without history; None in models of earlier releases.
    """

    kind: str
    encoding: Encoding
    calibration: Calibration
    thresholds: Thresholds
    request_features: tuple[str, ...]
    train_start_time: str
    train_end_time: str
    data_hash: str
    metrics: Mapping[str, Any]
    parameters: Mapping[str, Any]
    fallback: FallbackSpec | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the JSON form; ``read_spec`` is its inverse."""
        document: dict[str, Any] = {
            "kind": self.kind,
            "features": list(self.encoding.features),
            "request_only": {
                name: name in self.request_features for name in self.encoding.features
            },
            "vocabularies": {name: list(v) for name, v in self.encoding.vocabularies.items()},
            "calibration": asdict(self.calibration),
            "thresholds": asdict(self.thresholds),
            "training_window": {
                "start_time": self.train_start_time,
                "end_time": self.train_end_time,
            },
            "data_hash": self.data_hash,
            "metrics": dict(self.metrics),
            "parameters": dict(self.parameters),
        }
        if self.fallback is not None:
            document["fallback"] = self.fallback.to_document()
        return document


def read_spec(document: Mapping[str, Any]) -> ModelSpec:
    """Rebuild a specification from its JSON form."""
    return ModelSpec(
        kind=document["kind"],
        encoding=Encoding(
            tuple(document["features"]),
            {name: tuple(values) for name, values in document["vocabularies"].items()},
        ),
        calibration=Calibration(**document["calibration"]),
        thresholds=Thresholds(**document["thresholds"]),
        request_features=tuple(name for name, only in document["request_only"].items() if only),
        train_start_time=document["training_window"]["start_time"],
        train_end_time=document["training_window"]["end_time"],
        data_hash=document["data_hash"],
        metrics=document["metrics"],
        parameters=document["parameters"],
        fallback=read_fallback_spec(document["fallback"]) if "fallback" in document else None,
    )
