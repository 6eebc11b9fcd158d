"""Standardised rows and category codes become a small neural network, trained with early stopping.

A multilayer perceptron with one embedding per categorical column, dropout and weight decay. The
latest share of the training rows is held out; after each epoch the loss on them decides, and the
weights of the best epoch are the ones kept. Same seed and rows: same network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from training.encoding import Booleans, Encoding, Floats
from training.onnx_graph import NetworkWeights, build_onnx
from training.preprocessing import Preprocessing, fit_preprocessing


@dataclass(frozen=True)
class NetworkSettings:
    """How the network is built and trained."""

    hidden_sizes: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    weight_decay: float = 1e-3
    learning_rate: float = 5e-3
    batch_size: int = 1024
    max_epochs: int = 12
    patience_epochs: int = 4
    held_out_share: float = 0.15
    seed: int = 0


@dataclass(frozen=True)
class FittedNetwork:
    """The network's ONNX file, and its mean log loss per epoch on seen and held-out rows."""

    content: bytes
    train_losses: tuple[float, ...]
    valid_losses: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        """Position of the epoch whose weights were kept."""
        return int(np.argmin(self.valid_losses))


@dataclass(frozen=True)
class _Batch:
    numbers: torch.Tensor  # (rows, columns)
    codes: torch.Tensor  # (rows, categorical)
    targets: torch.Tensor  # (rows,)

    def __getitem__(self, rows: slice | torch.Tensor) -> _Batch:
        return _Batch(self.numbers[rows], self.codes[rows], self.targets[rows])


class TabularNetwork(nn.Module):
    """Embeddings and standardised numbers through ReLU layers to one log-odds."""

    def __init__(
        self, num_columns: int, vocabulary_sizes: tuple[int, ...], *, settings: NetworkSettings
    ) -> None:
        super().__init__()
        dimensions = [min(8, (size + 2) // 2) for size in vocabulary_sizes]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size + 1, dimension)
            for size, dimension in zip(vocabulary_sizes, dimensions, strict=True)
        )
        sizes = (num_columns + sum(dimensions), *settings.hidden_sizes, 1)
        self.layers = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return log-odds; ``(batch, columns), (batch, categorical)`` -> ``(batch,)``."""
        vectors = [table(codes[:, column]) for column, table in enumerate(self.embeddings)]
        hidden = torch.cat([numbers, *vectors], dim=1)  # (batch, inputs)
        for depth, layer in enumerate(self.layers):
            hidden = layer(self.dropout(torch.relu(hidden)) if depth else hidden)
        return hidden.squeeze(1)

    def read_weights(self) -> NetworkWeights:
        """Copy the weights out as numpy arrays."""
        values = {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()}
        return NetworkWeights(
            embeddings=tuple(values[f"embeddings.{i}.weight"] for i in range(len(self.embeddings))),
            layers=tuple(
                (values[f"layers.{i}.weight"], values[f"layers.{i}.bias"])
                for i in range(len(self.layers))
            ),
        )


def fit_network(
    matrix: Floats,
    is_fraud: Booleans,
    *,
    encoding: Encoding,
    settings: NetworkSettings,
    advance: Callable[[float], None] = lambda _epochs: None,
) -> FittedNetwork:
    """Train a network on raw model columns and write it as ONNX.

    Args:
        matrix: Raw model columns, oldest row first. Shape ``(rows, features)``.
        is_fraud: The truth. Shape ``(rows,)``; both classes must occur before the held-out share.
        encoding: Which columns are categorical.
        settings: Sizes, budget and seed.
        advance: Called with 1 after each epoch.

    Returns:
        The best epoch's network, and the losses of all epochs that ran.
    """
    num_seen = round(len(matrix) * (1.0 - settings.held_out_share))
    preprocessing = fit_preprocessing(matrix[:num_seen], encoding=encoding)
    rows = _prepare(matrix, is_fraud, preprocessing=preprocessing)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        num_columns = rows.numbers.shape[1]
        network = TabularNetwork(num_columns, encoding.vocabulary_sizes, settings=settings)
        _start_at_base_rate(network, share=float(is_fraud[:num_seen].mean()))
        losses = _train(network, rows[:num_seen], rows[num_seen:], settings, advance)
    typical_row = np.full(matrix.shape[1], np.nan)
    typical_row[preprocessing.numeric] = preprocessing.medians
    content = build_onnx(
        network.read_weights(), preprocessing=preprocessing, typical_row=typical_row
    )
    return FittedNetwork(content, *losses)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: as fast for so small a network, and the same sums on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(matrix: Floats, is_fraud: Booleans, *, preprocessing: Preprocessing) -> _Batch:
    return _Batch(
        torch.from_numpy(preprocessing.standardise(matrix).astype(np.float32)),
        torch.from_numpy(preprocessing.code_categories(matrix)),
        torch.from_numpy(is_fraud.astype(np.float32)),
    )


def _start_at_base_rate(network: TabularNetwork, *, share: float) -> None:
    """Spare the first epochs learning how rare fraud is."""
    bias = network.layers[-1].bias
    assert isinstance(bias, torch.Tensor)
    nn.init.constant_(bias, float(np.log(share / (1.0 - share))))


def _train(
    network: TabularNetwork,
    seen: _Batch,
    held_out: _Batch,
    settings: NetworkSettings,
    advance: Callable[[float], None],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Train in place until the held-out loss stops falling; leave the best epoch's weights in."""
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    best_weights = network.state_dict()
    train_losses: list[float] = []
    valid_losses: list[float] = []
    for _ in range(settings.max_epochs):
        _train_epoch(network, seen, optimiser, batch_size=settings.batch_size)
        train_losses.append(_measure_loss(network, seen))
        valid_losses.append(_measure_loss(network, held_out))
        advance(1)
        best_epoch = int(np.argmin(valid_losses))
        if best_epoch == len(valid_losses) - 1:
            best_weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        elif len(valid_losses) - 1 - best_epoch >= settings.patience_epochs:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return tuple(train_losses), tuple(valid_losses)


def _train_epoch(
    network: TabularNetwork, seen: _Batch, optimiser: torch.optim.Optimizer, *, batch_size: int
) -> None:
    network.train()
    for rows in _shuffle(len(seen.targets), batch_size=batch_size):
        batch = seen[rows]
        loss = nn.functional.binary_cross_entropy_with_logits(
            network(batch.numbers, batch.codes), batch.targets
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _shuffle(num_rows: int, *, batch_size: int) -> Iterator[torch.Tensor]:
    yield from torch.randperm(num_rows).split(batch_size)


def _measure_loss(network: TabularNetwork, rows: _Batch) -> float:
    """Return the mean log loss without dropout, in nats."""
    network.eval()
    with torch.inference_mode():
        margins = network(rows.numbers, rows.codes)
        loss = nn.functional.binary_cross_entropy_with_logits(margins, rows.targets)
    return float(loss)
