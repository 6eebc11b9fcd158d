"""What the prediction log says of outcomes that can be seen, and who asks for it."""

import numpy as np
import pytest

from features.fraud_selection import FeatureSet
from fraud_commands import fraud_train
from monitoring.outcome_shares import read_outcome_shares
from serving.prediction_log import PredictionLog, ScoredBatch, get_prediction_folder

FEATURES = FeatureSet(names=("amount_log",), categorical=(), dropped={})


def write_answers(runs, *, second: int, **shares: float) -> None:
    """Log one answer per transaction, ``second`` seconds after the first."""
    rows = len(shares)
    folder = get_prediction_folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    log = PredictionLog(folder, feature_set=FEATURES, flush_seconds=3600, max_pending=100)
    log.append(
        ScoredBatch(
            prediction_time_us=1_793_491_200_000_000 + second * 1_000_000,
            model_version="1",
            arm="champion",
            transaction_ids=list(shares),
            event_times_us=np.full(rows, 1_793_491_200_000_000),
            amounts=np.ones(rows),
            features=np.ones((rows, 1)),
            categories=[],
            scores=np.full(rows, 0.5),
            decisions=["approve"] * rows,
            degraded_reasons=[None] * rows,
            latency_ms=np.ones(rows),
            outcome_shares=np.array(list(shares.values())),
        )
    )
    log.close()


def test_the_first_answer_of_a_transaction_decides_whether_its_outcome_is_seen(tmp_path):
    write_answers(tmp_path, second=9, declined=1.0)
    write_answers(tmp_path, second=0, declined=0.0, let_through=0.05, approved=1.0)
    shares = read_outcome_shares(tmp_path)
    assert shares.to_dict() == {"declined": 0.0, "let_through": 0.05, "approved": 1.0}


def test_before_anything_was_answered_there_are_no_shares(tmp_path):
    assert read_outcome_shares(tmp_path).empty


def test_training_from_the_command_line_takes_the_shares_of_the_log(tmp_path, monkeypatch):
    write_answers(tmp_path, second=0, declined=0.0)
    asked = []

    def stop(_config, **options):
        asked.append(options["outcome_shares"].to_dict())
        raise KeyboardInterrupt

    monkeypatch.setattr("training.fraud.run_train", stop)
    with pytest.raises(KeyboardInterrupt):
        fraud_train(runs=tmp_path)
    assert asked == [{"declined": 0.0}]
