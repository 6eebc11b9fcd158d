"""The services of the serving benchmark start, score as the champion does, and end."""

import shutil

import numpy as np
import psutil
import pytest

from configs.schema import FraudConfig
from features.redis_server import is_redis_installed
from serving import bench_serving
from serving.bench_serving import run_bench_serving
from serving.peers import TEXTBOOK, UVICORN, list_peers
from serving.serving_world import prepare_world


def refuse_to_train(_: FraudConfig) -> None:
    pytest.fail("the folder has a champion")


def test_a_folder_that_serves_from_a_file_is_refused(tiny_world):
    need_redis()
    with (
        pytest.raises(ValueError, match="a folder of its own with --runs"),
        prepare_world(tiny_world, train=refuse_to_train, num_requests=10),
    ):
        pass


@pytest.fixture
def bench_world(tiny_world: FraudConfig, tmp_path) -> FraudConfig:
    """The small world's data and champion, without its feature store."""
    need_redis()
    runs = tmp_path / "runs"
    left_out = shutil.ignore_patterns("feature_store", "predictions", "serving", "redis")
    shutil.copytree(tiny_world.runs, runs, ignore=left_out)
    return tiny_world.model_copy(update={"runs": runs})


def need_redis():
    if not is_redis_installed():
        pytest.skip("redis-server is not installed")


def test_services_are_measured_score_as_the_champion_does_and_leave_nothing(
    bench_world, monkeypatch, tmp_path
):
    started = (TEXTBOOK, "our scorer, FastAPI", UVICORN)  # each start takes seconds
    peers = [peer for peer in list_peers() if peer.name in started]
    monkeypatch.setattr(bench_serving, "list_peers", lambda: peers)
    monkeypatch.setattr(bench_serving, "WARM_UP_SECONDS", 0.1)
    picture = tmp_path / "serving.svg"
    before = set(psutil.Process().children(recursive=True))

    result = run_bench_serving(
        bench_world, train=refuse_to_train, seconds=0.5, rounds=1, picture=picture
    )

    rows = {row["name"]: row for row in result["rows"]}
    assert [name for name, row in rows.items() if not row.get("qps", 0) > 0] == []
    assert {name: row["errors"] for name, row in rows.items()} == dict.fromkeys(rows, 0)
    assert rows[TEXTBOOK]["ratio_to_textbook"] == 1.0
    assert rows[TEXTBOOK]["measured"]["cores"] > 0
    assert rows[UVICORN]["share_of_uvicorn"] == 1.0
    targets = {target["name"]: target for target in result["targets"]}
    assert targets["difference_from_champion"]["met"] is True
    assert targets["qps"]["value"] is None  # ours was left out
    assert picture.is_file()
    assert not (bench_world.runs / "predictions").exists()
    left = set(psutil.Process().children(recursive=True)) - before
    servers = ("redis-server", "bentoml", "uvicorn")
    assert [process for process in left if process.name() in servers] == []


def test_a_store_that_is_whole_is_used_again_and_the_same_requests_are_drawn(bench_world):
    with prepare_world(bench_world, train=refuse_to_train, num_requests=20) as first:
        build = (bench_world.runs / "feature_store" / "features.json").read_bytes()
        scores = first.scores
    with prepare_world(bench_world, train=refuse_to_train, num_requests=20) as again:
        assert (bench_world.runs / "feature_store" / "features.json").read_bytes() == build
        assert again.config.redis_url != first.config.redis_url
        np.testing.assert_array_equal(again.scores, scores)
