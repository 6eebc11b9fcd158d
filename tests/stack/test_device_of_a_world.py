"""A device and a runs folder: its champion is what is timed; what cannot serve says so."""

import pytest
import torch

from configs.schema import FraudConfig
from serving.device_models import prepare_models
from serving.server import check_can_serve, find_free_port
from training.artefact import load_reference
from training.registry import get_champion


def ask_for_cuda(config: FraudConfig) -> FraudConfig:
    return config.model_copy(
        update={"serving": config.serving.model_copy(update={"device": "cuda"})}
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_serving_on_cuda_without_a_cuda_device_is_refused_before_anything_starts(tiny_world):
    with pytest.raises(ValueError, match="sees no CUDA device; use --device cpu"):
        check_can_serve(ask_for_cuda(tiny_world), port=find_free_port())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_serving_trees_on_cuda_is_refused_before_anything_starts(tiny_world):
    with pytest.raises(ValueError, match=r"the model is lightgbm.*--only pytorch"):
        check_can_serve(ask_for_cuda(tiny_world), port=find_free_port())


def test_the_champion_of_a_folder_is_timed_on_its_own_rows_beside_a_network(tiny_world):
    version, folder = get_champion(tiny_world.runs)
    models = prepare_models(tiny_world.runs, seed=0)
    assert models.trees == (folder / "model.txt").read_bytes()
    assert len(models.matrix) == len(load_reference(folder))
    assert f"champion {version}" in models.source
