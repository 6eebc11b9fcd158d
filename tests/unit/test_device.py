"""A network on a device scores as ONNX Runtime does; what cannot run on one is refused."""

import asyncio
import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from serving.device import open_device_scorer
from training.artefact import Artefact
from training.calibration import IDENTITY
from training.encoding import Encoding
from training.linear import fit_linear
from training.model_spec import ModelSpec
from training.neural import NetworkSettings, fit_network
from training.operating_point import Thresholds
from training.scorers import NetworkScorer, load_scorer
from training.torch_scorer import FIRST_CAPACITY, TorchScorer

ENCODING = Encoding(("amount", "gap", "card", "count"), {"card": ("a", "b", "c")})
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def make_matrix(num_rows=600, seed=0):
    generator = np.random.default_rng(seed)
    gaps = np.where(generator.random(num_rows) < 0.2, np.nan, generator.normal(size=num_rows))
    amounts = generator.lognormal(3.0, 2.0, num_rows)
    cards = np.where(generator.random(num_rows) < 0.1, np.nan, generator.integers(0, 3, num_rows))
    return np.column_stack([amounts, gaps, cards, generator.poisson(3, num_rows)])


@pytest.fixture(scope="module")
def network():
    matrix = make_matrix()
    settings = NetworkSettings(max_epochs=4, batch_size=64)
    fitted = fit_network(matrix, matrix[:, 0] > 40, encoding=ENCODING, settings=settings)
    return NetworkScorer(fitted.content)


@pytest.fixture(scope="module", params=DEVICES)
def on_device(request, network):
    return TorchScorer(network.content, device=request.param)


values = st.floats(-1e9, 1e9) | st.just(np.nan) | st.sampled_from([np.inf, -np.inf, 1e300])
codes = st.sampled_from([0.0, 1.0, 2.0, np.nan])


@settings(max_examples=100, deadline=None)
@given(
    numbers=arrays(np.float64, st.tuples(st.integers(0, 12), st.just(4)), elements=values),
    code=codes,
)
def test_margins_are_those_of_onnx_runtime_for_any_rows(network, on_device, numbers, code):
    numbers[:, 2] = code
    margins = on_device.margins(numbers)
    assert margins.dtype == np.float64
    np.testing.assert_allclose(margins, network.margins(numbers), rtol=0, atol=1e-5)


def test_margins_are_those_of_onnx_runtime_beyond_the_first_buffers(network, on_device):
    matrix = make_matrix(3 * FIRST_CAPACITY, seed=1)
    np.testing.assert_allclose(
        on_device.margins(matrix), network.margins(matrix), rtol=0, atol=1e-5
    )


def test_an_answer_outlives_the_next_question(on_device):
    matrix = make_matrix(8)
    first = on_device.margins(matrix)
    kept = first.copy()
    on_device.margins(matrix[::-1])
    np.testing.assert_array_equal(first, kept)


def test_rows_may_lie_in_memory_in_any_order(on_device):
    matrix = make_matrix(50)
    straight = on_device.margins(matrix)
    np.testing.assert_array_equal(on_device.margins(np.asfortranarray(matrix)), straight)
    np.testing.assert_allclose(on_device.margins(matrix[::-1])[::-1], straight, rtol=0, atol=1e-6)


def test_a_graph_of_another_kind_is_refused_by_the_name_of_its_operation():
    nodes = [helper.make_node("Tanh", ["matrix"], ["margin"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows", 2])
        for name in ("matrix", "margin")
    ]
    model = helper.make_model(helper.make_graph(nodes, "other", ends[:1], ends[1:]))
    assert isinstance(model, onnx.ModelProto)
    with pytest.raises(ValueError, match="unknown here: Tanh"):
        TorchScorer(model.SerializeToString(), device="cpu")


def make_artefact(kind, scorer):
    spec = ModelSpec(
        kind=kind,
        encoding=ENCODING,
        calibration=IDENTITY,
        thresholds=Thresholds(review=0.2, decline=0.8, min_review_amount=3.0),
        request_features=("amount",),
        train_start_time="2026-01-01T00:00:00+00:00",
        train_end_time="2026-02-01T00:00:00+00:00",
        data_hash="0" * 64,
        metrics={},
        parameters={},
    )
    return Artefact(spec, scorer, version="1")


@pytest.mark.parametrize("device", DEVICES)
def test_an_opened_device_answers_concurrent_callers_as_the_artefact_would(network, device):
    matrix = make_matrix(64, seed=2)

    async def ask():
        batcher = open_device_scorer(make_artefact("pytorch", network), device, max_rows=16)
        try:
            return await asyncio.gather(*(batcher.margins(matrix[[row]]) for row in range(64)))
        finally:
            await batcher.close()

    margins = np.concatenate(asyncio.run(ask()))
    np.testing.assert_allclose(margins, network.margins(matrix), rtol=0, atol=1e-5)


def test_a_model_that_is_no_network_is_refused_with_what_to_do():
    matrix = make_matrix(100)
    linear = load_scorer(
        "logistic_regression", fit_linear(matrix, matrix[:, 0] > 40, encoding=ENCODING)
    )
    with pytest.raises(ValueError, match=r"is logistic_regression.*--only pytorch"):
        open_device_scorer(make_artefact("logistic_regression", linear), "cpu")


def test_a_device_that_answers_otherwise_does_not_serve(network):
    altered = NetworkScorer(network.content)
    matrix = make_matrix()
    other = NetworkSettings(max_epochs=1, batch_size=64, seed=9)
    altered.content = fit_network(
        matrix, matrix[:, 0] > 40, encoding=ENCODING, settings=other
    ).content
    with pytest.raises(ValueError, match="away from ONNX Runtime; use --device cpu"):
        open_device_scorer(make_artefact("pytorch", altered), "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_cuda_device_is_one_line_that_says_what_to_do(network):
    with pytest.raises(ValueError, match=r"sees no CUDA device; use --device cpu") as caught:
        open_device_scorer(make_artefact("pytorch", network), "cuda")
    assert "\n" not in str(caught.value)


def test_a_service_imports_no_torch_until_a_device_is_opened():
    code = "import sys, serving.device; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.findall("True|False", found.stdout) == ["False"]
