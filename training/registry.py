"""Runs, models and who serves: MLflow on SQLite and local files, below ``<runs>/mlflow``.

The only module that knows MLflow. A run holds parameters, metrics, pictures and the model; a
registered version points at one run's model. The alias ``champion`` and the rollout, a tag of the
registered model, are all that decides what serves; the alias ``challenger`` is the version trained
last, ``previous`` the champion before, for a way back. Nothing is written as a pickle and none is
read.

MLflow is imported when it is first needed, after the environment says: no telemetry, no pickles.
"""

from __future__ import annotations

import fcntl
import functools
import importlib
import logging
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as find_package_version
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlparse

import numpy as np

from configs.progress import show_progress
from training.encoding import Encoding
from training.rollout import Rollout, parse_rollout

MODEL_NAME = "fraud"
MODEL_FOLDER = "model"
ARTEFACT_FOLDER = "artefact"
CHAMPION: Literal["champion"] = "champion"
CHALLENGER: Literal["challenger"] = "challenger"
PREVIOUS: Literal["previous"] = "previous"
Alias = Literal["champion", "challenger", "previous"]
ROLLOUT_TAG = "rollout"
TAKEN_BACK = "taken back:"
"""Before a rollout in the tag: somebody rolled back, and nobody may start it again unasked."""
ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # unpickling a model runs its author's code
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
SERVING_PACKAGES = ("lightgbm", "numba", "numpy", "onnxruntime", "pandas", "pyarrow", "scipy")
"""What a logged model imports; its environment is pinned to the versions that made it."""


class RegistryError(RuntimeError):
    """MLflow refused or could not reach its database; the message says what to do.

    Attributes:
        code: MLflow's name for what happened, such as ``RESOURCE_DOES_NOT_EXIST``.
    """

    def __init__(self, database: Path, error: Any) -> None:  # noqa: ANN401 - without types
        said = str(error).partition("\n")[0]
        super().__init__(f"{said} (MLflow; is {database} whole, writable, and its disk not full?)")
        self.code = str(error.error_code)


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


def get_tracking_uri(runs: Path) -> str:
    """Return the address of the tracking database, for the MLflow command line too."""
    return f"sqlite:///{get_database_path(runs)}"


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
    client = _open_client(get_database_path(runs))
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
    client = _open_client(get_database_path(runs))
    try:
        client.create_registered_model(MODEL_NAME)
    except RegistryError as error:
        if error.code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
    return str(client.create_model_version(MODEL_NAME, source, run_id, tags=tags).version)


def find_tagged_version(runs: Path, name: str, text: str) -> str | None:
    """Return the oldest version registered with a tag, or ``None``; makes no files."""
    database = get_database_path(runs)
    if not database.is_file():
        return None
    found = _open_client(database).search_model_versions(f"name = '{MODEL_NAME}'")
    versions = [int(version.version) for version in found if version.tags.get(name) == text]
    return str(min(versions)) if versions else None


def set_alias(runs: Path, alias: Literal["champion", "challenger"], *, version: str) -> str | None:
    """Point an alias at a version; from then on it is what a running service finds.

    A champion that is replaced is remembered as ``previous``, whoever promotes. A rollout of the
    version that becomes the champion is over.

    Args:
        runs: Output folder.
        alias: Which.
        version: Where to.

    Returns:
        The version the alias pointed at before, or ``None``.
    """
    with _hold_aliases(runs):
        before = find_version(runs, alias)
        if alias == CHAMPION and before is not None and before != version:
            # First, so that a process killed in between leaves no champion without a way back.
            _point(runs, PREVIOUS, version=before)
        _point(runs, alias, version=version)
        if alias == CHAMPION:
            # Last: a process killed in between leaves a rollout of the champion, which is none.
            rollout = _read_rollout_tag(runs)
            is_taken_back = rollout.startswith(TAKEN_BACK) and before != version
            if is_taken_back or rollout.split()[:1] == [version]:
                _write_rollout_tag(runs, "")
    return before


def roll_back(runs: Path, *, check: Callable[[Path], object]) -> tuple[str, str, str | None]:
    """End the rollout that is under way; if there is none, make the champion before it again.

    Asking twice changes nothing more: the second time is refused, so that a request that is
    repeated because its answer was lost neither brings the bad model back nor goes back two steps.

    Args:
        runs: Output folder.
        check: Called with the artefact's folder before the champion changes; raises if it is no
            good.

    Returns:
        The version that was the champion, the one that is now, and the rollout that was ended.

    Raises:
        FileNotFoundError: If there is no champion.
        ValueError: If there is nothing to take back, or ``check`` says no.
    """
    with _hold_aliases(runs):
        champion, _ = get_champion(runs)
        rollout = _read_rollout_tag(runs)
        before = find_version(runs, PREVIOUS)
        if rollout.startswith(TAKEN_BACK):
            raise ValueError(
                f"the rollout was {rollout}, and version {champion} answers everybody; to go"
                " further back name the version: `throughline fraud rollback --to ...`"
            )
        if rollout and rollout.split()[0] != champion:
            _write_rollout_tag(runs, f"{TAKEN_BACK} {rollout}")
            return champion, champion, rollout
        if before is None or before == champion:
            raise ValueError(f"version {champion} is the champion; there is none to go back to")
        check(_find_folder(get_database_path(runs), before))
        _point(runs, CHAMPION, version=before)
    return champion, before, None


def set_rollout(runs: Path, rollout: Rollout | None) -> None:
    """Have a challenger score in the shadow or answer some customers; ``None`` ends that.

    One value in the registry: whoever reads sees the rollout before, or this one.

    Args:
        runs: Output folder.
        rollout: What a running service does from then on.

    Raises:
        FileNotFoundError: If there is no champion beside whom to roll out.
        ValueError: If there is no such version, it is the champion, or its rollout was taken back
            by ``roll_back``: what somebody stopped must not begin again by itself.
    """
    with _hold_aliases(runs):
        if rollout is None:
            if not _read_rollout_tag(runs).startswith(TAKEN_BACK):
                _write_rollout_tag(runs, "")
            return
        champion, _ = get_champion(runs)
        find_artefact(runs, rollout.version)
        if rollout.version == champion:
            raise ValueError(f"version {champion} is the champion; it needs no rollout")
        known = _read_rollout_tag(runs)
        if known.startswith(f"{TAKEN_BACK} {rollout.version} "):
            raise ValueError(
                f"the rollout of version {rollout.version} was taken back; train another, or make"
                f" it the champion: `throughline fraud rollback --to {rollout.version}`"
            )
        _write_rollout_tag(runs, str(rollout))


def get_rollout(runs: Path) -> Rollout | None:
    """Return the rollout under way, or ``None``; makes no files, and is as cheap as ``get_model``.

    Raises:
        ValueError: If the tag is no rollout: somebody wrote it by hand.
    """
    text = _read_rollout_tag(runs)
    if not text or text.startswith(TAKEN_BACK):
        return None
    rollout = parse_rollout(text)
    return rollout if rollout.version != find_version(runs, CHAMPION) else None


def get_rollout_model(runs: Path) -> tuple[Rollout, Path] | None:
    """Return the rollout under way and the folder its artefact is in, or ``None``.

    Raises:
        ValueError: As for ``get_rollout``, or if there is no such version.
    """
    rollout = get_rollout(runs)
    return None if rollout is None else (rollout, find_artefact(runs, rollout.version))


def find_artefact(runs: Path, version: str) -> Path:
    """Return the folder a version's artefact is in; makes no files.

    Raises:
        ValueError: If there is no such version.
    """
    database = get_database_path(runs)
    if not database.is_file():
        raise ValueError(f"there is no version {version}; run `throughline fraud train` first")
    try:
        return _find_folder(database, version)
    except RegistryError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ValueError(f"there is no version {version} of the model") from error


def get_registration_time(runs: Path, version: str) -> datetime:
    """Return when a version was registered, UTC."""
    client = _open_client(get_database_path(runs))
    milliseconds = client.get_model_version(MODEL_NAME, version).creation_timestamp
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _point(runs: Path, alias: Alias, *, version: str) -> None:
    _open_client(get_database_path(runs)).set_registered_model_alias(MODEL_NAME, alias, version)


def _read_rollout_tag(runs: Path) -> str:
    """Return the tag's text, "" where there is none."""
    database = get_database_path(runs)
    if not database.is_file():
        return ""
    return _look_up(database, _read_change_counter(database)).rollout


def _write_rollout_tag(runs: Path, text: str) -> None:
    if text == _read_rollout_tag(runs):
        return
    client = _open_client(get_database_path(runs))
    client.set_registered_model_tag(MODEL_NAME, ROLLOUT_TAG, text)


@contextmanager
def _hold_aliases(runs: Path) -> Iterator[None]:
    """Keep other processes and threads from moving an alias or the rollout meanwhile."""
    lock_file = get_database_path(runs).with_name("aliases.lock")
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        yield


def find_version(runs: Path, alias: Alias) -> str | None:
    """Return the version an alias points at, or ``None``; makes no files."""
    database = get_database_path(runs)
    if not database.is_file():
        return None
    return _look_up(database, _read_change_counter(database)).aliases.get(alias)


def get_model(runs: Path, alias: Literal["champion", "challenger"]) -> tuple[str, Path]:
    """Return the version an alias points at, and the folder its artefact is in.

    Cheap enough to ask every second: MLflow is only asked when the database has changed.

    Raises:
        FileNotFoundError: If the alias points at nothing.
    """
    version = find_version(runs, alias)
    if version is None:
        raise FileNotFoundError(
            f"no {alias} in {get_database_path(runs)}; run `throughline fraud train` first"
        )
    return version, _find_folder(get_database_path(runs), version)


def get_champion(runs: Path) -> tuple[str, Path]:
    """Return the champion's version and artefact folder; see ``get_model``."""
    return get_model(runs, CHAMPION)


def get_database_path(runs: Path) -> Path:
    """Return where the tracking database of ``runs`` is, as an absolute path."""
    return (runs / "mlflow" / "mlflow.db").resolve()


class _Pointers(NamedTuple):
    """Where the aliases point, by name, and the text of the rollout's tag."""

    aliases: dict[str, str]
    rollout: str


@functools.lru_cache(maxsize=8)
def _look_up(database: Path, change_counter: bytes) -> _Pointers:
    """Read all that decides what serves; ``change_counter`` is what makes an old answer stale."""
    del change_counter
    try:
        model = _open_client(database).get_registered_model(MODEL_NAME)
    except RegistryError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return _Pointers({}, "")
    aliases = {alias: str(version) for alias, version in model.aliases.items()}
    return _Pointers(aliases, model.tags.get(ROLLOUT_TAG, ""))


def _read_change_counter(database: Path) -> bytes:
    """Read the part of the database's header that every committed transaction changes.

    Source: SQLite file format, section 1.3.7 "File change counter" (bytes 24 to 27); MLflow uses
        the default rollback journal, where the counter moves at each commit.
    """
    with database.open("rb") as stream:
        return stream.read(28)[24:]


@functools.cache
def _find_folder(database: Path, version: str) -> Path:
    """Find a version's files; a version never changes."""
    source = _open_client(database).get_model_version(MODEL_NAME, version).source
    return Path(unquote(urlparse(source).path)) / "data" / ARTEFACT_FOLDER


@functools.cache
def _import_mlflow(name: str) -> Any:  # noqa: ANN401 - a module without types
    os.environ.update(ENVIRONMENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints while it is imported
        module = importlib.import_module(name)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each table it makes
    return module


class _Client:
    """MLflow's client, whose errors are ours: its own derive from none that a caller expects."""

    def __init__(self, client: Any, database: Path) -> None:  # noqa: ANN401 - as above
        self._client, self._database = client, database

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        method = getattr(self._client, name)

        @functools.wraps(method)
        def call(*args: object, **options: object) -> Any:  # noqa: ANN401 - as above
            with _translate_errors(self._database):
                return method(*args, **options)

        return call


@contextmanager
def _translate_errors(database: Path) -> Iterator[None]:
    exceptions = _import_mlflow("mlflow.exceptions")
    try:
        yield
    except exceptions.MlflowException as error:
        raise RegistryError(database, error) from error


@functools.cache
def _open_client(database: Path) -> Any:  # noqa: ANN401 - a class without types
    """Connect once per process; the first time in a folder, MLflow makes its tables."""
    mlflow = _import_mlflow("mlflow")
    uri = f"sqlite:///{database}"
    database.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), _show_first_time(database), _translate_errors(database):
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy")  # MLflow's own use
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return _Client(client, database)


def _show_first_time(database: Path) -> AbstractContextManager[object]:
    return nullcontext() if database.is_file() else show_progress("Making the MLflow database")


def _find_experiment(client: Any, database: Path) -> str:  # noqa: ANN401 - as above
    found = client.get_experiment_by_name(MODEL_NAME)
    if found is not None:
        return str(found.experiment_id)
    location = (database.parent / "artifacts").as_uri()
    return str(client.create_experiment(MODEL_NAME, artifact_location=location))


def _log_numbers(client: Any, run_id: str, record: RunRecord) -> None:  # noqa: ANN401 - as above
    """Write parameters, metrics, curves and tags in one transaction."""
    entities = _import_mlflow("mlflow.entities")
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
    pyfunc, models = _import_mlflow("mlflow.pyfunc"), _import_mlflow("mlflow.models")
    types = _import_mlflow("mlflow.types")
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
