"""What is registered and what serves is read: from MLflow on SQLite, below ``<runs>/mlflow``.

A registered version points at one run's model (``training.registration``). The alias ``champion``
and the rollout, a tag of the registered model, are all that decides what serves; the alias
``challenger`` is the version trained last, ``previous`` the champion before, for a way back
(``training.promotion`` moves them).

What decides who serves may be asked every second: MLflow is only asked when its database has
changed.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlparse

from training.mlflow_client import RegistryError, open_client
from training.rollout import Rollout, parse_rollout

MODEL_NAME = "fraud"
ARTEFACT_FOLDER = "artefact"
CHAMPION: Literal["champion"] = "champion"
CHALLENGER: Literal["challenger"] = "challenger"
PREVIOUS: Literal["previous"] = "previous"
Alias = Literal["champion", "challenger", "previous"]
ROLLOUT_TAG = "rollout"
TAKEN_BACK = "taken back:"
"""Before a rollout in the tag: somebody rolled back, and nobody may start it again unasked."""


def get_database_path(runs: Path) -> Path:
    """Return where the tracking database of ``runs`` is, as an absolute path."""
    return (runs / "mlflow" / "mlflow.db").resolve()


def get_tracking_uri(runs: Path) -> str:
    """Return the address of the tracking database, for the MLflow command line too."""
    return f"sqlite:///{get_database_path(runs)}"


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


def get_rollout(runs: Path) -> Rollout | None:
    """Return the rollout under way, or ``None``; makes no files, and is as cheap as ``get_model``.

    Raises:
        ValueError: If the tag is no rollout: somebody wrote it by hand.
    """
    text = read_rollout_tag(runs)
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


def read_rollout_tag(runs: Path) -> str:
    """Return the text of the rollout's tag, "" where there is none; makes no files."""
    database = get_database_path(runs)
    if not database.is_file():
        return ""
    return _look_up(database, _read_change_counter(database)).rollout


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


def find_tagged_version(runs: Path, name: str, text: str) -> str | None:
    """Return the oldest version registered with a tag, or ``None``; makes no files."""
    database = get_database_path(runs)
    if not database.is_file():
        return None
    found = open_client(database).search_model_versions(f"name = '{MODEL_NAME}'")
    versions = [int(version.version) for version in found if version.tags.get(name) == text]
    return str(min(versions)) if versions else None


def get_registration_time(runs: Path, version: str) -> datetime:
    """Return when a version was registered, UTC."""
    client = open_client(get_database_path(runs))
    milliseconds = client.get_model_version(MODEL_NAME, version).creation_timestamp
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


class _Pointers(NamedTuple):
    """Where the aliases point, by name, and the text of the rollout's tag."""

    aliases: dict[str, str]
    rollout: str


@functools.lru_cache(maxsize=8)
def _look_up(database: Path, change_counter: bytes) -> _Pointers:
    """Read all that decides what serves; ``change_counter`` is what makes an old answer stale."""
    del change_counter
    try:
        model = open_client(database).get_registered_model(MODEL_NAME)
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
    source = open_client(database).get_model_version(MODEL_NAME, version).source
    return Path(unquote(urlparse(source).path)) / "data" / ARTEFACT_FOLDER
