from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from serving.rollout import ModelWatcher
from training.rollout import Rollout


@dataclass
class FakeArtefact:
    folder: Path


class FakeRegistry:
    """A champion, and perhaps a rollout, over folders of which some are broken."""

    def __init__(self, rollout: Rollout | None = None) -> None:
        self.version = "1"
        self.rollout: Rollout | Exception | None = rollout
        self.broken: set[str] = set()
        self.is_away = False
        self.loads: list[str] = []

    def get_champion(self) -> tuple[str, Path]:
        if self.is_away:
            raise OSError("database is locked")
        return self.version, Path(f"/artefacts/{self.version}")

    def get_rollout(self) -> tuple[Rollout, Path] | None:
        if isinstance(self.rollout, Exception):
            raise self.rollout
        return self.rollout and (self.rollout, Path(f"/artefacts/{self.rollout.version}"))

    def load(self, folder: Path) -> FakeArtefact:
        self.loads.append(folder.name)
        if folder.name in self.broken:
            raise ValueError(f"{folder}/model.txt does not match\nits manifest")
        return FakeArtefact(folder)


class FakeModels:
    """Notes what it is told, and knows who would answer."""

    def __init__(self) -> None:
        self.champions: list[str] = []
        self.rollouts: list[str | None] = []
        self.unusable: set[str] = set()

    def replace_champion(self, version: str, artefact: FakeArtefact) -> None:
        self._check(artefact)
        self.champions.append(version)

    def start_rollout(self, rollout: Rollout, artefact: FakeArtefact) -> None:
        self._check(artefact)
        assert artefact.folder.name == rollout.version
        self.rollouts.append(str(rollout))

    def move_rollout(self, rollout: Rollout) -> None:
        assert self.rollouts[-1] is not None
        assert self.rollouts[-1].split()[0] == rollout.version
        self.rollouts.append(str(rollout))

    def end_rollout(self) -> None:
        self.rollouts.append(None)

    def _check(self, artefact: FakeArtefact) -> None:
        if artefact.folder.name in self.unusable:
            raise ValueError("it needs features the store lacks: V2")


def make_watcher(
    registry: FakeRegistry, models: FakeModels | None = None, poll_seconds: float = 60.0
) -> ModelWatcher:
    return ModelWatcher(
        find_champion=registry.get_champion,
        find_rollout=registry.get_rollout,
        load_artefact=registry.load,  # type: ignore[arg-type]
        models=FakeModels() if models is None else models,  # type: ignore[arg-type]
        poll_seconds=poll_seconds,
    )


def test_a_new_champion_is_taken_once_and_not_loaded_again():
    registry, models = FakeRegistry(), FakeModels()
    watcher = make_watcher(registry, models)
    for version in ("1", "1", "2", "2"):
        registry.version = version
        watcher.poll()
    assert models.champions == ["1", "2"]
    assert registry.loads == ["1", "2"]


def test_a_champion_that_cannot_be_loaded_is_refused_with_its_reason_in_one_line():
    registry, models = FakeRegistry(), FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    registry.version, registry.broken = "2", {"2"}
    watcher.poll()
    assert models.champions == ["1"]
    assert watcher.version == "1"
    assert watcher.refused is not None
    assert watcher.refused.version == "2"
    assert watcher.refused.reason.endswith("model.txt does not match its manifest")


def test_a_champion_that_cannot_be_used_here_is_refused_with_the_reason():
    models = FakeModels()
    models.unusable = {"1"}
    watcher = make_watcher(FakeRegistry(), models)
    watcher.poll()
    assert watcher.version is None
    assert watcher.refused is not None
    assert watcher.refused.reason.endswith("it needs features the store lacks: V2")


def test_a_refused_champion_is_not_loaded_at_every_poll_but_again_when_time_has_passed():
    registry, models = FakeRegistry(), FakeModels()
    registry.broken = {"1"}
    watcher = make_watcher(registry, models)
    watcher.poll()
    watcher.poll()
    assert registry.loads == ["1"]
    registry.broken = set()
    watcher.champions.retry_at = time.monotonic()
    watcher.poll()
    assert models.champions == ["1"]
    assert watcher.refused is None


def test_going_back_to_the_model_that_serves_ends_the_refusal():
    registry, models = FakeRegistry(), FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    registry.version, registry.broken = "2", {"2"}
    watcher.poll()
    registry.version = "1"
    watcher.poll()
    assert watcher.refused is None
    assert registry.loads == ["1", "2"]


def test_a_registry_that_is_away_is_reported_and_the_model_stays():
    registry, models = FakeRegistry(), FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    registry.is_away = True
    watcher.poll()
    assert watcher.version == "1"
    assert "database is locked" in str(watcher.registry_error)
    registry.is_away = False
    watcher.poll()
    assert watcher.registry_error is None


def test_the_watcher_finds_a_promotion_by_itself_and_stops_when_closed():
    registry, models = FakeRegistry(), FakeModels()
    watcher = make_watcher(registry, models, poll_seconds=0.01)
    watcher.start()
    registry.version = "2"
    deadline = time.monotonic() + 5
    while len(models.champions) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    watcher.close()
    registry.version = "3"
    time.sleep(0.05)
    assert models.champions == ["1", "2"]


SHADOW = Rollout("2", "shadow", 0.0)
CANARY = Rollout("2", "canary", 0.25)


def poll_through(registry: FakeRegistry, *rollouts: Rollout | Exception | None) -> FakeModels:
    """Poll once for each state of the registry; return what the models were told."""
    models = FakeModels()
    watcher = make_watcher(registry, models)
    for rollout in rollouts:
        registry.rollout = rollout
        watcher.poll()
    return models


def test_a_rollout_is_followed_through_its_stages_and_its_challenger_loaded_once():
    registry = FakeRegistry()
    models = poll_through(registry, None, SHADOW, SHADOW, CANARY, None, None)
    assert models.rollouts == ["2 shadow 0.0", "2 canary 0.25", None]
    assert registry.loads == ["1", "2"]


def test_another_challenger_is_loaded_only_once_the_one_before_it_is_gone():
    registry = FakeRegistry()
    models = poll_through(registry, SHADOW, Rollout("3", "shadow", 0.0))
    assert models.rollouts == ["2 shadow 0.0", None, "3 shadow 0.0"]
    assert registry.loads == ["1", "2", "3"]


def test_a_challenger_that_cannot_be_loaded_is_refused_and_the_champion_stays():
    registry = FakeRegistry(CANARY)
    registry.broken = {"2"}
    models = FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    watcher.poll()
    assert (models.champions, models.rollouts) == (["1"], [])
    assert (watcher.refused, watcher.rollout) == (None, None)
    assert watcher.rollout_refused is not None
    assert watcher.rollout_refused.version == "2"
    assert watcher.rollout_refused.reason.endswith("model.txt does not match its manifest")
    assert registry.loads == ["1", "2"]


def test_a_refused_challenger_is_tried_again_when_time_has_passed_and_forgotten_when_it_is_over():
    registry = FakeRegistry(CANARY)
    registry.broken = {"2"}
    models = FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    registry.broken = set()
    watcher.challengers.retry_at = time.monotonic()
    watcher.poll()
    assert (models.rollouts, watcher.rollout_refused) == (["2 canary 0.25"], None)
    registry.broken, registry.rollout = {"3"}, Rollout("3", "shadow", 0.0)
    watcher.poll()
    assert watcher.rollout_refused is not None
    registry.rollout = None
    watcher.poll()
    assert watcher.rollout_refused is None


def test_a_registry_whose_word_is_no_rollout_ends_the_one_there_was():
    registry = FakeRegistry(CANARY)
    models = FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    registry.rollout = ValueError("'nonsense' is no rollout")
    watcher.poll()
    assert models.rollouts == ["2 canary 0.25", None]
    assert watcher.rollout_refused == ("", "ValueError: 'nonsense' is no rollout")
    assert watcher.registry_error is None


def test_a_registry_that_is_away_leaves_the_rollout_as_it_was():
    registry = FakeRegistry(CANARY)
    models = FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    registry.rollout = OSError("database is locked")
    watcher.poll()
    assert models.rollouts == ["2 canary 0.25"]
    assert "database is locked" in str(watcher.registry_error)


def test_without_a_champion_nothing_is_rolled_out():
    registry = FakeRegistry(CANARY)
    registry.broken = {"1"}
    models = FakeModels()
    watcher = make_watcher(registry, models)
    watcher.poll()
    assert (models.rollouts, registry.loads) == ([], ["1"])
