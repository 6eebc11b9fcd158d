"""A YAML file becomes one frozen, typed configuration; an unknown key or a bad value is an error.

Read once, at the edge (``throughline.py``, a service's start); every function below receives plain
values. Units are in the names; times are UTC; shares and rates are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from configs.sections import (
    DataSection,
    DemoSection,
    LoadSection,
    MonitoringSection,
    RetrainingSection,
    RolloutSection,
    ServingSection,
    StackSection,
    StreamSection,
    TimelapseSection,
    TrainingSection,
    WorldSize,
)
from configs.setting_types import Frozen

DEFAULT_FRAUD_CONFIG = Path(__file__).with_name("fraud.yaml")


class FraudConfig(Frozen):
    """Everything the fraud problem can be told; ``runs`` is the folder all output goes to."""

    problem: Literal["fraud"]
    profile: Literal["embedded", "stack"]
    seed: Annotated[int, Field(ge=0)]
    runs: Path
    data: DataSection
    training: TrainingSection
    stack: StackSection
    stream: StreamSection
    serving: ServingSection
    load: LoadSection
    monitoring: MonitoringSection
    retraining: RetrainingSection
    rollout: RolloutSection
    demo: DemoSection
    timelapse: TimelapseSection

    @property
    def redis_url(self) -> str | None:
        """The profile's Redis; ``None`` where the online store is a file."""
        return self.stack.redis_url if self.profile == "stack" else None

    @property
    def log_redis_url(self) -> str | None:
        """The profile's Redis of the stream's log; ``None`` where it has none of its own."""
        return self.stack.log_redis_url if self.profile == "stack" else None

    @property
    def world_size(self) -> WorldSize:
        """The size ``data.size`` names."""
        if self.data.size not in self.data.sizes:
            allowed = ", ".join(sorted(self.data.sizes))
            raise ValueError(f"data.size is '{self.data.size}'; it must be one of: {allowed}")
        return self.data.sizes[self.data.size]


def load_fraud_config(
    path: Path = DEFAULT_FRAUD_CONFIG, *, changes: dict[str, Any] | None = None
) -> FraudConfig:
    """Read and check a fraud configuration.

    Args:
        path: A YAML file with every section of ``configs/fraud.yaml``.
        changes: Values that replace the file's, by dotted key, as ``{"data.size": "full"}``; a
            wrong one is told as ``--set``, the option that makes them.

    Returns:
        The frozen configuration.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not YAML, or a key is unknown, missing or out of range.

    >>> load_fraud_config(changes={"seed": 3}).seed
    3
    """
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file at {path}; pass one with --config")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds no settings; start from {DEFAULT_FRAUD_CONFIG.name}")
    for dotted, value in (changes or {}).items():
        _replace(document, dotted.split("."), value)
    try:
        return FraudConfig.model_validate(document)
    except ValidationError as error:
        raise ValueError(_in_one_line(error, path=path, changed=changes or ())) from error


def _replace(document: dict[str, Any], keys: list[str], value: object) -> None:
    """Set ``document[k1][k2]... = value``; a missing section is made, so validation names it."""
    *sections, last = keys
    for section in sections:
        document = document.setdefault(section, {})
        if not isinstance(document, dict):
            raise ValueError(f"--set {'.'.join(keys)}: {section} is one value, not a section")
    document[last] = value


def _in_one_line(error: ValidationError, *, path: Path, changed: Collection[str]) -> str:
    """Name each wrong key, where it comes from and what is allowed.

    As ``fraud.yaml: data.size: Field required``, or ``--set seed: ...`` for a changed key.
    """
    problems = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        is_changed = any(f"{key}.".startswith(f"{c}.") or c.startswith(f"{key}.") for c in changed)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such setting"
        problems.append(f"{'--set ' if is_changed else f'{path}: '}{key}: {message}")
    return "; ".join(problems)
