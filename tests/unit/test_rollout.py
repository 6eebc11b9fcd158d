from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from serving.rollout import ChampionWatcher


@dataclass
class FakeArtefact:
    folder: Path


class FakeRegistry:
    """One champion alias over folders, of which some are broken."""

    def __init__(self) -> None:
        self.version = "1"
        self.broken: set[str] = set()
        self.is_away = False
        self.loads: list[str] = []

    def get_champion(self) -> tuple[str, Path]:
        if self.is_away:
            raise OSError("database is locked")
        return self.version, Path(f"/artefacts/{self.version}")

    def load(self, folder: Path) -> FakeArtefact:
        self.loads.append(folder.name)
        if folder.name in self.broken:
            raise ValueError(f"{folder}/model.txt does not match\nits manifest")
        return FakeArtefact(folder)


def make_watcher(registry: FakeRegistry, accepted: list[str], poll_seconds: float = 60.0):
    return ChampionWatcher(
        find_champion=registry.get_champion,
        load_artefact=registry.load,
        accept=lambda version, _: accepted.append(version),
        poll_seconds=poll_seconds,
    )


def test_a_new_champion_is_taken_once_and_not_loaded_again():
    registry, accepted = FakeRegistry(), []
    watcher = make_watcher(registry, accepted)
    for version in ("1", "1", "2", "2"):
        registry.version = version
        watcher.poll()
    assert accepted == ["1", "2"]
    assert registry.loads == ["1", "2"]


def test_a_champion_that_cannot_be_loaded_is_refused_with_its_reason_in_one_line():
    registry, accepted = FakeRegistry(), []
    watcher = make_watcher(registry, accepted)
    watcher.poll()
    registry.version, registry.broken = "2", {"2"}
    watcher.poll()
    assert accepted == ["1"]
    assert watcher.version == "1"
    assert watcher.refused is not None
    assert watcher.refused.version == "2"
    assert watcher.refused.reason.endswith("model.txt does not match its manifest")


def test_a_champion_that_cannot_be_used_here_is_refused_with_the_reason():
    def refuse(_version: str, _artefact: FakeArtefact) -> None:
        raise ValueError("it needs features the store lacks: V2")

    watcher = make_watcher(FakeRegistry(), [])
    watcher.accept = refuse
    watcher.poll()
    assert watcher.version is None
    assert watcher.refused is not None
    assert watcher.refused.reason.endswith("it needs features the store lacks: V2")


def test_a_refused_champion_is_not_loaded_at_every_poll_but_again_when_time_has_passed():
    registry, accepted = FakeRegistry(), []
    registry.broken = {"1"}
    watcher = make_watcher(registry, accepted)
    watcher.poll()
    watcher.poll()
    assert registry.loads == ["1"]
    registry.broken = set()
    watcher.retry_at = time.monotonic()
    watcher.poll()
    assert accepted == ["1"]
    assert watcher.refused is None


def test_going_back_to_the_model_that_serves_ends_the_refusal():
    registry, accepted = FakeRegistry(), []
    watcher = make_watcher(registry, accepted)
    watcher.poll()
    registry.version, registry.broken = "2", {"2"}
    watcher.poll()
    registry.version = "1"
    watcher.poll()
    assert watcher.refused is None
    assert registry.loads == ["1", "2"]


def test_a_registry_that_is_away_is_reported_and_the_model_stays():
    registry, accepted = FakeRegistry(), []
    watcher = make_watcher(registry, accepted)
    watcher.poll()
    registry.is_away = True
    watcher.poll()
    assert watcher.version == "1"
    assert "database is locked" in str(watcher.registry_error)
    registry.is_away = False
    watcher.poll()
    assert watcher.registry_error is None


def test_the_watcher_finds_a_promotion_by_itself_and_stops_when_closed():
    registry, accepted = FakeRegistry(), []
    watcher = make_watcher(registry, accepted, poll_seconds=0.01)
    watcher.start()
    registry.version = "2"
    deadline = time.monotonic() + 5
    while len(accepted) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    watcher.close()
    registry.version = "3"
    time.sleep(0.05)
    assert accepted == ["1", "2"]
