"""The registry's champion and rollout become the models that answer, without a restart.

A watcher asks the registry once per period. A new version is loaded and checked in full (every
file's hash, golden rows, features) before it takes part, and a batch sees the models of before or
those of after (``serving.lineup``). A version that cannot be used is refused and reported: in a
champion's stead the old one keeps answering, and without its challenger a rollout is none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from training.rollout import Rollout

if TYPE_CHECKING:
    from training.artefact import Artefact

logger = logging.getLogger("bentoml.throughline")

RETRY_REFUSED_SECONDS = 30.0
"""A refused version is tried again after this long: someone may have repaired its files."""


class Refusal(NamedTuple):
    """A version that was not taken, and why; "" where the registry names none that can be read."""

    version: str
    reason: str


class Models(Protocol):
    """Puts checked models in place; raises if one cannot be used here."""

    def replace_champion(self, version: str, artefact: Artefact) -> None: ...  # noqa: D102
    def start_rollout(self, rollout: Rollout, artefact: Artefact) -> None: ...  # noqa: D102
    def move_rollout(self, rollout: Rollout) -> None: ...  # noqa: D102
    def end_rollout(self) -> None: ...  # noqa: D102


class _Door:
    """Lets a version in once it was loaded, and keeps one that failed out for a while."""

    def __init__(self, load_artefact: Callable[[Path], Artefact]) -> None:
        self.load_artefact = load_artefact
        self.refused: Refusal | None = None
        self.retry_at = 0.0

    def let_in(self, version: str, folder: Path, accept: Callable[[Artefact], None]) -> bool:
        """Load and accept a version; tell whether it was."""
        is_refused = self.refused is not None and self.refused.version == version
        if is_refused and time.monotonic() < self.retry_at:
            return False
        try:
            accept(self.load_artefact(folder))
        except Exception as error:  # noqa: BLE001 - any failure means: refuse this artefact
            self.refuse(Refusal(version, _in_one_line(error)))
            return False
        self.refused = None
        return True

    def refuse(self, refusal: Refusal) -> None:
        if refusal != self.refused:
            logger.error("model %s refused: %s", refusal.version, refusal.reason)
        self.refused = refusal
        self.retry_at = time.monotonic() + RETRY_REFUSED_SECONDS


class ModelWatcher:
    """Keep the newest usable champion in place, and the rollout as the registry has it.

    Args:
        find_champion: Asks the registry: ``(version, artefact folder)``.
        find_rollout: Asks it for the rollout and its challenger's folder; raises ``ValueError`` if
            what it says is no rollout.
        load_artefact: Loads and checks a folder; raises if anything about it is wrong.
        models: Where checked models go.
        poll_seconds: How often to ask.

    Attributes:
        version: The champion's.
        rollout: That is in place.
    """

    def __init__(
        self,
        *,
        find_champion: Callable[[], tuple[str, Path]],
        find_rollout: Callable[[], tuple[Rollout, Path] | None],
        load_artefact: Callable[[Path], Artefact],
        models: Models,
        poll_seconds: float,
    ) -> None:
        self.find_champion = find_champion
        self.find_rollout = find_rollout
        self.models = models
        self.poll_seconds = poll_seconds
        self.version: str | None = None
        self.rollout: Rollout | None = None
        self.champions = _Door(load_artefact)
        self.challengers = _Door(load_artefact)
        self.registry_error: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_closed, name="model-watcher")
        self._thread.daemon = True

    @property
    def refused(self) -> Refusal | None:
        """The champion that was refused, while the registry names it."""
        return self.champions.refused

    @property
    def rollout_refused(self) -> Refusal | None:
        """The challenger that was refused, while the registry names it."""
        return self.challengers.refused

    def start(self) -> None:
        """Ask once now, then keep asking in the background."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._closing.set()
        self._thread.join()

    def poll(self) -> None:
        """Ask the registry once; whatever fails is reported, for the watcher must not die of it."""
        try:
            self._follow_champion(*self.find_champion())
            self._follow_rollout()
        except Exception as error:  # noqa: BLE001 - any failure means: keep the models there are
            self._report_registry(_in_one_line(error))
        else:
            self._report_registry(None)

    def _follow_champion(self, version: str, folder: Path) -> None:
        if version == self.version:
            self.champions.refused = None
            return
        accept = partial(self.models.replace_champion, version)
        if self.champions.let_in(version, folder, accept):
            logger.info("model %s replaces model %s", version, self.version)
            self.version = version

    def _follow_rollout(self) -> None:
        try:
            found = self.find_rollout()
        except ValueError as error:  # the registry answers, and what it says is none
            self._end_rollout()
            self.challengers.refuse(Refusal("", _in_one_line(error)))
            return
        if found is None or self.version is None:
            self._end_rollout()
            self.challengers.refused = None
            return
        rollout, folder = found
        if self.rollout is None or self.rollout.version != rollout.version:
            self._end_rollout()  # at once: loading another takes a moment
            accept = partial(self.models.start_rollout, rollout)
            if not self.challengers.let_in(rollout.version, folder, accept):
                return
        elif rollout != self.rollout:
            self.models.move_rollout(rollout)
        if rollout != self.rollout:
            logger.info("rollout: %s", rollout)
        self.rollout = rollout

    def _end_rollout(self) -> None:
        if self.rollout is not None:
            self.models.end_rollout()
            logger.info("rollout over: %s", self.rollout)
            self.rollout = None

    def _report_registry(self, reason: str | None) -> None:
        if reason is not None and reason != self.registry_error:
            logger.error("registry cannot be asked, the models stay: %s", reason)
        self.registry_error = reason

    def _poll_until_closed(self) -> None:
        while not self._closing.wait(self.poll_seconds):
            self.poll()


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
