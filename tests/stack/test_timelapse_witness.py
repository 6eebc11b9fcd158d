"""The time-lapse's short cuts against the real training stage, service, stream and log."""

import numpy as np
import pytest

from configs.schema import load_fraud_config
from monitoring.timelapse_models import Trainer
from monitoring.timelapse_witness import serve_again
from monitoring.timelapse_worlds import WorldPlan, build_world, configure_world
from tests.model.test_timelapse import PARAMETERS, TINY
from training.fraud import run_train
from training.fraud_refit import refit

pytestmark = pytest.mark.stack


def test_what_is_really_served_is_what_the_timelapse_says_is_served(tmp_path):
    plan = WorldPlan("unchanged", "nothing changes")
    changes = {**TINY, "timelapse.witness_days": 1}
    config = configure_world(load_fraud_config(changes=changes), plan, folder=tmp_path)
    world = build_world(config, plan)
    trainer = Trainer(config, world, refit=refit, parameters=PARAMETERS)
    everything = np.ones(len(world.transactions))
    first = trainer.train(world.first_time, outcome_shares=everything)
    found = serve_again(config, world, first, train=run_train, parameters=PARAMETERS)
    assert found["rows"] == world.day_starts[1] - world.day_starts[0] > 100
    assert found["max_feature_difference"] < 1e-9
    assert found["max_score_difference"] < 1e-9
    assert found["degraded"] == 0
