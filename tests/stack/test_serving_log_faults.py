"""What becomes of answers and records while the prediction log's disk takes nothing."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serving.prediction_log import get_prediction_folder, load_predictions
from tests.stack.served_world import ServedWorld, ask, read_expected
from tests.stack.stream_world import wait_until

pytestmark = pytest.mark.stack


@contextmanager
def full_disk(worker: int) -> Iterator[None]:
    """Let every write of a process to a file fail, as on a full disk."""
    before = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, before)


def rename(messages: list[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Give transactions ids that are not a load test's, so that monitoring sees them."""
    return [{**row, "transaction_id": f"{prefix}-{i}"} for i, row in enumerate(messages)]


def list_recorded(world: ServedWorld, prefix: str) -> set[str]:
    predictions, _ = load_predictions(get_prediction_folder(world.config.runs))
    ids = predictions["transaction_id"]
    return set(ids[ids.str.startswith(f"{prefix}-")])


def test_answers_go_on_while_the_disk_is_full_and_each_lost_record_is_counted(served_world):
    num, worker = len(served_world.messages), served_world.get_state()["worker"]
    wait_until(lambda: served_world.get_state()["prediction_log"]["pending"] == 0)
    dropped = served_world.get_state()["prediction_log"]["dropped"]
    ask(served_world.url, rename(served_world.messages, "before"))
    wait_until(lambda: len(list_recorded(served_world, "before")) == num)
    with full_disk(worker):
        answers = ask(served_world.url, rename(served_world.messages, "lost"))
        wait_until(
            lambda: served_world.get_state()["prediction_log"]["dropped"] == dropped + num,
            seconds=20,
        )
    ask(served_world.url, rename(served_world.messages, "after"))
    wait_until(lambda: len(list_recorded(served_world, "after")) == num)
    known = {answer for answer in map(read_expected, answers) if answer is not None}
    assert len(answers) == num
    assert known <= set(served_world.expected)
    assert list_recorded(served_world, "lost") == set()
    time.sleep(0.6)  # the worker publishes four times a second
    shown = served_world.read_metrics()["throughline_prediction_log_dropped_total"]
    assert shown == dropped + num
    assert served_world.get_state()["worker"] == worker
