"""A loaded network and a device become something an event loop can ask for margins.

Torch is imported when a device is opened, not before: a service on the CPU does without it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import numpy as np

from serving.micro_batcher import MicroBatcher
from training.artefact import Artefact
from training.encoding import Floats
from training.scorers import NetworkScorer

logger = logging.getLogger("bentoml.throughline")

Device = Literal["cpu", "cuda"]

MAX_ROWS = 4096
MAX_WAIT_MS = 1.0
"""A tenth of the latency promised; at 10,000 requests a second ten of them share a batch."""
MAX_DIFFERENCE = 1e-5
"""Between a device's margins and ONNX Runtime's, as ``measure_difference`` measures it."""


def open_device_scorer(
    artefact: Artefact,
    device: Device,
    *,
    max_rows: int = MAX_ROWS,
    max_wait_ms: float = MAX_WAIT_MS,
) -> MicroBatcher:
    """Put a network on a device, behind a micro-batcher.

    Two rows are scored before anything is returned: what a device does on its first call is done
    then, and one that answers otherwise than ONNX Runtime does not serve.

    Args:
        artefact: A loaded model; must be a PyTorch network.
        device: ``cpu`` runs the same code without a GPU; ONNX Runtime is faster there.
        max_rows: Most rows of one batch.
        max_wait_ms: Longest that a row waits for others.

    Returns:
        Has ``await margins(matrix)``, as ``artefact.scorer.margins``, and ``await close()``.

    Raises:
        ValueError: If torch has no such device, the model is no network, or its margins differ.
    """
    check_can_use(artefact, device)
    from training.torch_scorer import TorchScorer

    network = artefact.scorer
    assert isinstance(network, NetworkScorer)
    scorer = TorchScorer(network.content, device=device)
    num_features = len(artefact.features)
    probe = np.stack([np.zeros(num_features), np.full(num_features, np.nan)])
    difference = measure_difference(scorer.margins(probe), network.margins(probe))
    if not difference <= MAX_DIFFERENCE:
        raise ValueError(
            f"{device} scores a row {difference:.2g} away from ONNX Runtime; use --device cpu"
        )
    return MicroBatcher(scorer.margins, max_rows=max_rows, max_wait_ms=max_wait_ms)


def open_margins(
    artefact: Artefact, device: Device
) -> Callable[[Floats], Awaitable[Floats]] | None:
    """Put a champion on a device if it is a network; any other answers from the CPU.

    The batcher ends with the last reference to what is returned, once its batches are answered.

    Raises:
        ValueError: As for ``open_device_scorer``.
    """
    if not isinstance(artefact.scorer, NetworkScorer):
        logger.warning("the champion is %s, which is scored on the CPU", artefact.spec.kind)
        return None
    return open_device_scorer(artefact, device).margins


def measure_difference(margins: Floats, expected: Floats) -> float:
    """Find the largest difference between two engines' margins.

    Both add float32 in an order of their own, which costs some units in the last place: beyond a
    margin of 10, a probability of 0.99995, a difference counts relative to a tenth of the margin.

    Args:
        margins: Log-odds. Shape ``(rows,)``.
        expected: Likewise.

    >>> measure_difference(np.array([1.5, -40.0]), np.array([1.0, -44.0]))
    0.909...
    """
    return float(np.max(np.abs(margins - expected) / np.maximum(1.0, np.abs(expected) / 10.0)))


def check_can_use(artefact: Artefact, device: Device) -> None:
    """Check that a model can be served on a device.

    Raises:
        ValueError: If torch has no such device, or the model is no PyTorch network.
    """
    from training.torch_scorer import check_device

    check_device(device)
    if not isinstance(artefact.scorer, NetworkScorer):
        raise ValueError(
            f"the model is {artefact.spec.kind}, and a device serves PyTorch networks; use "
            "--device cpu, or train one with `throughline fraud train --only pytorch`"
        )
