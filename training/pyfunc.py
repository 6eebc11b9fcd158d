"""MLflow's generic Python model, without a pickle: the loader that ``mlflow models serve`` calls.

MLflow stores a model's folder of native files and the name of this module; nothing else has to be
deserialised. The checks of ``training.artefact.load_artefact`` apply here as everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from training.artefact import Artefact, load_artefact
from training.encoding import Floats


class PyfuncModel:
    """The interface MLflow expects around an artefact."""

    def __init__(self, artefact: Artefact) -> None:
        self._artefact = artefact

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Floats:
        """Return calibrated probabilities of fraud for feature rows; there are no parameters."""
        if params:
            raise ValueError(f"this model takes no parameters, and got: {', '.join(params)}")
        return self._artefact.predict(model_input)


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """Load the model; the name is MLflow's."""
    return PyfuncModel(load_artefact(Path(data_path)))
