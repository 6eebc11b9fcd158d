"""Loaded artefacts become the models that answer, each change in one step.

One reference is replaced, so a batch sees the models of before a change or those of after it, never
a part. Changed by one thread (``serving.rollout``), read by the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from features.fraud_selection import FeatureSet
from serving.arms import Arms, Margins, Model
from serving.decisions import Exploration
from serving.row_matrix import ModelInput
from training.rollout import Rollout

if TYPE_CHECKING:
    from training.artefact import Artefact


class Lineup:
    """Who answers now.

    Args:
        feature_set: The features the store holds.
        exploration: Lets some of what would be declined through, whoever answers.
        open_device: Puts a model on a device; ``None`` for one that stays where it is.

    Attributes:
        arms: ``None`` until there is a champion.
        versions_served: Of the champions so far, in order.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        *,
        exploration: Exploration,
        open_device: Callable[[Artefact], Margins | None] | None = None,
    ) -> None:
        self.arms: Arms | None = None
        self.versions_served: list[str] = []
        self._feature_set = feature_set
        self._exploration = exploration
        self._open_device = open_device

    @property
    def champion(self) -> Model | None:
        """The champion that answers."""
        return None if self.arms is None else self.arms.champion

    @property
    def rollout(self) -> Rollout | None:
        """What a challenger does beside it."""
        return None if self.arms is None else self.arms.rollout

    def replace_champion(self, version: str, artefact: Artefact) -> None:
        """Let another model be the champion of every batch that starts from now on.

        A rollout of that version is over in the same step; one of another goes on.

        Raises:
            ValueError: If it needs features that the store lacks, or does not run on the device.
        """
        champion = self._make_model(version, artefact)
        self.versions_served = [*self.versions_served, version]
        arms = self.arms
        if arms is None or arms.challenger is None or arms.challenger.version == version:
            self.arms = Arms(champion, exploration=self._exploration)
        else:
            self.arms = replace(arms, champion=champion)

    def start_rollout(self, rollout: Rollout, artefact: Artefact) -> None:
        """Let a challenger do what the rollout says, in every batch that starts from now on.

        Raises:
            ValueError: As for ``replace_champion``.
        """
        assert self.arms is not None, "a challenger needs a champion"
        challenger = self._make_model(rollout.version, artefact)
        self.arms = replace(self.arms, challenger=challenger, rollout=rollout)

    def move_rollout(self, rollout: Rollout) -> None:
        """Give the challenger that is there another stage or share."""
        assert self.arms is not None, "a challenger needs a champion"
        challenger = self.arms.challenger
        assert challenger is not None, "nothing is rolled out"
        assert challenger.version == rollout.version, "another version must be loaded first"
        self.arms = replace(self.arms, rollout=rollout)

    def end_rollout(self) -> None:
        """Let the champion answer everybody from now on."""
        if self.arms is not None:
            self.arms = replace(self.arms, challenger=None, rollout=None)

    def _make_model(self, version: str, artefact: Artefact) -> Model:
        model_input = ModelInput(artefact.spec.encoding, self._feature_set)
        margins = self._open_device(artefact) if self._open_device is not None else None
        return Model(version, artefact, model_input, margins)
