"""The registry's champion becomes the model that answers, without a restart.

A watcher asks the registry once per period. A new champion is loaded and checked in full (every
file's hash, golden rows, features) before one reference is replaced, so a request sees the old
model or the new one, never a part. A champion that cannot be used is refused and reported, and the
old one keeps answering.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from training.artefact import Artefact

logger = logging.getLogger("bentoml.throughline")

RETRY_REFUSED_SECONDS = 30.0
"""A refused version is tried again after this long: someone may have repaired its files."""


class Refusal(NamedTuple):
    """A champion that was not taken, and why."""

    version: str
    reason: str


class ChampionWatcher:
    """Keep the newest usable champion in place.

    Args:
        find_champion: Asks the registry: ``(version, artefact folder)``.
        load_artefact: Loads and checks a folder; raises if anything about it is wrong.
        accept: Puts a checked model in place; raises if it cannot be used here.
        poll_seconds: How often to ask.
    """

    def __init__(
        self,
        *,
        find_champion: Callable[[], tuple[str, Path]],
        load_artefact: Callable[[Path], Artefact],
        accept: Callable[[str, Artefact], None],
        poll_seconds: float,
    ) -> None:
        self.find_champion = find_champion
        self.load_artefact = load_artefact
        self.accept = accept
        self.poll_seconds = poll_seconds
        self.version: str | None = None
        self.refused: Refusal | None = None
        self.registry_error: str | None = None
        self.retry_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_closed, name="champion-watcher")
        self._thread.daemon = True

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
            version, folder = self.find_champion()
        except Exception as error:  # noqa: BLE001 - any failure means: keep the model there is
            self._report_registry(_in_one_line(error))
            return
        self._report_registry(None)
        if version == self.version:
            self.refused = None
            return
        is_refused = self.refused is not None and self.refused.version == version
        if is_refused and time.monotonic() < self.retry_at:
            return
        try:
            self.accept(version, self.load_artefact(folder))
        except Exception as error:  # noqa: BLE001 - any failure means: refuse this artefact
            self._refuse(Refusal(version, _in_one_line(error)))
            return
        logger.info("model %s replaces model %s", version, self.version)
        self.version, self.refused = version, None

    def _refuse(self, refusal: Refusal) -> None:
        if refusal != self.refused:
            logger.error(
                "model %s refused, model %s keeps serving: %s",
                refusal.version,
                self.version,
                refusal.reason,
            )
        self.refused = refusal
        self.retry_at = time.monotonic() + RETRY_REFUSED_SECONDS

    def _report_registry(self, reason: str | None) -> None:
        if reason is not None and reason != self.registry_error:
            logger.error(
                "registry cannot be asked, model %s keeps serving: %s", self.version, reason
            )
        self.registry_error = reason

    def _poll_until_closed(self) -> None:
        while not self._closing.wait(self.poll_seconds):
            self.poll()


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
