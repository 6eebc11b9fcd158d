"""MLflow as the registry uses it: imported when it is first needed, its errors ours.

The only module that imports MLflow; only the registry's modules import this one. Before the import
the environment says: no telemetry, and nothing that was written as a pickle is read.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from configs.progress import show_progress

ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # unpickling a model runs its author's code
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class RegistryError(RuntimeError):
    """MLflow refused or could not reach its database; the message says what to do.

    Attributes:
        code: MLflow's name for what happened, such as ``RESOURCE_DOES_NOT_EXIST``.
    """

    def __init__(self, database: Path, error: Any) -> None:  # noqa: ANN401 - without types
        said = str(error).partition("\n")[0]
        super().__init__(f"{said} (MLflow; is {database} whole, writable, and its disk not full?)")
        self.code = str(error.error_code)


@functools.cache
def open_client(database: Path) -> Any:  # noqa: ANN401 - a class without types
    """Connect once per process; the first time in a folder, MLflow makes its tables."""
    mlflow = import_mlflow("mlflow")
    uri = f"sqlite:///{database}"
    database.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), _show_first_time(database), _translate_errors(database):
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy")  # MLflow's own use
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return _Client(client, database)


@functools.cache
def import_mlflow(name: str) -> Any:  # noqa: ANN401 - a module without types
    """Import MLflow, or a module of it by its full name, once the environment is set."""
    os.environ.update(ENVIRONMENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints while it is imported
        module = importlib.import_module(name)
    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each table it makes
    _take_ctrl_c_back()
    return module


def _take_ctrl_c_back() -> None:
    """Have Ctrl-C interrupt a wait again: polars, which MLflow imports where it is, has it restart.

    It installs a handler beneath Python's that calls Python's, but lets the system call go on, so
    whoever waits for a process would never hear of it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


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
    exceptions = import_mlflow("mlflow.exceptions")
    try:
        yield
    except exceptions.MlflowException as error:
        raise RegistryError(database, error) from error


def _show_first_time(database: Path) -> AbstractContextManager[object]:
    return nullcontext() if database.is_file() else show_progress("Making the MLflow database")
