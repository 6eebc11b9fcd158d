"""A fitted model becomes a run in MLflow, and the run's model a registered version.

A run holds parameters, metrics, pictures and the model. Nothing is written as a pickle: a model is
its artefact's folder, beside the name of the code that loads it (``training.pyfunc``).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as find_package_version
from pathlib import Path
from typing import Any

import numpy as np

from training.encoding import Encoding
from training.mlflow_client import RegistryError, import_mlflow, open_client
from training.registry import ARTEFACT_FOLDER, MODEL_NAME, get_database_path

MODEL_FOLDER = "model"
SERVING_PACKAGES = ("lightgbm", "numba", "numpy", "onnxruntime", "pandas", "pyarrow", "scipy")
"""What a logged model imports; its environment is pinned to the versions that made it."""


@dataclass(frozen=True)
class RunRecord:
    """What one fitted model leaves behind.

    Attributes:
        name: The run's name in MLflow.
        parameters: Settings by name.
        metrics: Numbers by name.
        curves: One number per step, by name.
        pictures: SVG texts by name.
        documents: JSON-able mappings by name.
        tags: Free text by name.
    """

    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def log_run(runs: Path, record: RunRecord, *, artefact: Path, encoding: Encoding) -> str:
    """Write a finished run with its model.

    Args:
        runs: Output folder; the database in it is made when there is none.
        record: What to write.
        artefact: The model's folder (``training.artefact``), copied.
        encoding: The model's inputs, for its signature.

    Returns:
        The run's id.
    """
    client = open_client(get_database_path(runs))
    experiment = _find_experiment(client, get_database_path(runs))
    run_id: str = client.create_run(experiment, run_name=record.name).info.run_id
    status = "FAILED"
    try:
        _log_numbers(client, run_id, record)
        for name, svg in record.pictures.items():
            client.log_text(run_id, svg, f"pictures/{name}.svg")
        for name, document in record.documents.items():
            client.log_dict(run_id, document, f"{name}.json")
        with tempfile.TemporaryDirectory() as folder:
            _save_model(Path(folder) / MODEL_FOLDER, artefact=artefact, encoding=encoding)
            client.log_artifacts(run_id, str(Path(folder) / MODEL_FOLDER), MODEL_FOLDER)
        status = "FINISHED"
    finally:  # an interrupted run says so, rather than seem to go on for ever
        client.set_terminated(run_id, status)
    return run_id


def register(runs: Path, run_id: str, *, tags: Mapping[str, str] | None = None) -> str:
    """Make a run's model a version of the registered model.

    Args:
        runs: Output folder.
        run_id: From ``log_run``.
        tags: The version's, by name: there from its first instant, for ``find_tagged_version``.

    Returns:
        The version, "1" for the first.
    """
    client = open_client(get_database_path(runs))
    try:
        client.create_registered_model(MODEL_NAME)
    except RegistryError as error:
        if error.code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
    return str(client.create_model_version(MODEL_NAME, source, run_id, tags=tags).version)


def _find_experiment(client: Any, database: Path) -> str:  # noqa: ANN401 - without types
    found = client.get_experiment_by_name(MODEL_NAME)
    if found is not None:
        return str(found.experiment_id)
    location = (database.parent / "artifacts").as_uri()
    return str(client.create_experiment(MODEL_NAME, artifact_location=location))


def _log_numbers(client: Any, run_id: str, record: RunRecord) -> None:  # noqa: ANN401 - as above
    """Write parameters, metrics, curves and tags in one transaction."""
    entities = import_mlflow("mlflow.entities")
    now_ms = int(client.get_run(run_id).info.start_time)
    series = {**{name: (value,) for name, value in record.metrics.items()}, **record.curves}
    metrics = [
        entities.Metric(name, value, now_ms, step)
        for name, values in series.items()
        for step, value in enumerate(values)
    ]
    tags = {**_find_commit(), **record.tags}
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[entities.Param(name, str(value)) for name, value in record.parameters.items()],
        tags=[entities.RunTag(name, text) for name, text in tags.items()],
    )


def _save_model(folder: Path, *, artefact: Path, encoding: Encoding) -> None:
    """Write MLflow's model folder around an artefact: the loader's code, no serialised object."""
    pyfunc, models = import_mlflow("mlflow.pyfunc"), import_mlflow("mlflow.models")
    types = import_mlflow("mlflow.types")
    code = Path(__file__).parent
    staged = Path(shutil.copytree(artefact, folder.parent / ARTEFACT_FOLDER))  # MLflow keeps names
    inputs = [
        types.ColSpec("string" if name in encoding.vocabularies else "double", name, required=False)
        for name in encoding.features
    ]
    output = types.TensorSpec(np.dtype("float64"), (-1,), "score")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*input example was not provided"
        )  # there is a signature
        pyfunc.save_model(
            path=str(folder),
            loader_module="training.pyfunc",
            data_path=str(staged),
            code_paths=[str(code), str(code.parent / "configs")],
            pip_requirements=[f"{name}=={find_package_version(name)}" for name in SERVING_PACKAGES],
            signature=models.ModelSignature(types.Schema(inputs), types.Schema([output])),
        )


def _find_commit() -> dict[str, str]:
    """Return the source's git commit as a tag; nothing outside a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return {}
    return {"mlflow.source.git.commit": found.stdout.strip()} if found.returncode == 0 else {}
