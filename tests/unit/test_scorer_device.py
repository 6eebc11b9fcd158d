"""A champion on a device: the same answers, one batch of requests after another."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch

from serving.device import open_margins
from tests.unit.scorer_world import (
    ENCODING,
    FakeStore,
    make_scorer,
    make_transactions,
)
from training.artefact import Artefact
from training.calibration import Calibration
from training.linear import fit_linear
from training.model_spec import ModelSpec
from training.neural import NetworkSettings, fit_network
from training.operating_point import Thresholds
from training.scorers import NetworkScorer, load_scorer

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def make_artefact(kind, scorer):
    spec = ModelSpec(
        kind=kind, encoding=ENCODING, calibration=Calibration(1.5, -0.25),
        thresholds=Thresholds(0.3, 0.7, 0.0), request_features=(), train_start_time="",
        train_end_time="", data_hash="", metrics={}, parameters={},
    )  # fmt: skip
    return Artefact(spec, scorer)


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(3)
    numbers = generator.normal(3.0, 2.0, (300, 3))
    return np.column_stack([numbers, generator.integers(0, 2, 300)])


@pytest.fixture(scope="module")
def network(rows):
    settings = NetworkSettings(max_epochs=3, batch_size=64)
    fitted = fit_network(rows, rows[:, 1] > 3, encoding=ENCODING, settings=settings)
    return make_artefact("pytorch", NetworkScorer(fitted.content))


def list_device_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("device")]


@pytest.mark.parametrize("device", DEVICES)
def test_a_network_on_a_device_answers_as_it_does_without_one(network, device):
    counts = {f"c{number}": number for number in range(9)}

    async def ask(open_device):
        scorer = make_scorer(FakeStore(counts), open_device=open_device)
        scorer.lineup.replace_champion("7", network)
        asked = [scorer.score(make_transactions(customer, "c1")) for customer in counts]
        return [answer.score for answers in await asyncio.gather(*asked) for answer in answers]

    plain, on_device = (
        asyncio.run(ask(way)) for way in (None, partial(open_margins, device=device))
    )
    assert on_device == pytest.approx(plain, abs=1e-5)
    assert len(set(plain)) == len(counts)


def test_champions_swapped_under_load_fail_nobody_and_leave_no_thread(network):
    before = len(list_device_threads())

    async def play():
        open_device = partial(open_margins, device="cpu")
        store = FakeStore({"ann": 2})
        scorer = make_scorer(store, open_device=open_device)
        scorer.lineup.replace_champion("0", network)
        versions = []
        for version in range(1, 6):
            store.may_go.clear()
            running = [scorer.submit(make_transactions("ann")) for _ in range(4)]
            while len(store.asked) < version:  # the batch begins with the champion of before
                await asyncio.sleep(0)
            scorer.lineup.replace_champion(str(version), network)
            store.may_go.set()
            versions += [answer.model_version for (answer,) in await asyncio.gather(*running)]
        return versions

    versions = asyncio.run(play())
    assert sorted(set(versions)) == ["0", "1", "2", "3", "4"]
    deadline = time.monotonic() + 10
    while len(list_device_threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list_device_threads()) == before


def test_a_champion_that_is_no_network_stays_on_the_cpu(rows):
    content = fit_linear(rows, rows[:, 1] > 3, encoding=ENCODING)
    linear = make_artefact("logistic_regression", load_scorer("logistic_regression", content))
    assert open_margins(linear, "cpu") is None
