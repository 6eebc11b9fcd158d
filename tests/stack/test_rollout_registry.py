"""The rollout in the registry: one at most, over when its version is promoted or taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from configs.schema import load_fraud_config
from monitoring import loop_wiring
from serving.champion_changes import AUDIT_FILE, roll_back_champion, swap_champion
from tests.stack.registry_world import add_version, save_small_artefact
from training.promotion import roll_back, set_alias, set_rollout
from training.registry import (
    find_artefact,
    find_version,
    get_champion,
    get_database_path,
    get_rollout,
    get_rollout_model,
    get_tracking_uri,
)
from training.rollout import Rollout

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
SHADOW = Rollout("2", "shadow", 0.0)
CANARY = Rollout("2", "canary", 0.25)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    artefact = tmp_path_factory.mktemp("artefact") / "small"
    save_small_artefact(artefact)
    runs = tmp_path_factory.mktemp("registry") / "runs"
    for _ in range(3):
        add_version(runs, artefact)
    return runs


@pytest.fixture
def runs(registry: Path) -> Path:
    """Three versions; 1 is the champion, nothing was before it, and there is no rollout."""
    set_alias(registry, "champion", version="3")
    set_alias(registry, "champion", version="1")
    open_client(registry).delete_registered_model_alias("fraud", "previous")
    set_rollout(registry, None)
    return registry


def open_client(runs: Path):
    import mlflow

    uri = get_tracking_uri(runs)
    return mlflow.MlflowClient(uri, uri)


def write_tag(runs: Path, text: str) -> None:
    open_client(runs).set_registered_model_tag("fraud", "rollout", text)


def take_no_notice(_: Path) -> None:
    """Find nothing wrong."""


def test_without_a_registry_there_is_no_rollout_and_nothing_is_made(tmp_path):
    set_rollout(tmp_path, None)
    assert get_rollout(tmp_path) is None
    assert not get_database_path(tmp_path).exists()
    with pytest.raises(FileNotFoundError, match="no champion in"):
        set_rollout(tmp_path, SHADOW)


def test_the_rollout_set_last_is_the_rollout(runs):
    for rollout in (SHADOW, CANARY, None, CANARY):
        set_rollout(runs, rollout)
        assert get_rollout(runs) == rollout
    assert get_rollout_model(runs) == (CANARY, find_artefact(runs, "2"))


def test_a_rollout_by_another_process_is_seen_at_once(runs):
    code = (
        "import sys; from pathlib import Path; from training.rollout import Rollout;"
        " from training.promotion import set_rollout;"
        " set_rollout(Path(sys.argv[1]), Rollout('2', 'canary', 0.25))"
    )
    assert get_rollout(runs) is None
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(runs)], cwd=ROOT, check=True)
    assert get_rollout(runs) == CANARY


def test_promoting_the_challenger_ends_its_rollout(runs):
    set_rollout(runs, CANARY)
    set_alias(runs, "champion", version="2")
    set_alias(runs, "champion", version="1")  # had it been kept, it would be there again
    assert get_rollout(runs) is None


def test_promoting_another_version_leaves_the_rollout_as_it_is(runs):
    set_rollout(runs, CANARY)
    set_alias(runs, "champion", version="3")
    assert get_rollout(runs) == CANARY


def test_moving_the_challenger_alias_leaves_the_rollout_as_it_is(runs):
    set_rollout(runs, CANARY)
    set_alias(runs, "challenger", version="2")
    assert get_rollout(runs) == CANARY


def test_a_promotion_killed_before_it_ended_the_rollout_leaves_none(runs):
    set_rollout(runs, CANARY)
    open_client(runs).set_registered_model_alias("fraud", "champion", "2")
    assert get_rollout(runs) is None


@pytest.mark.parametrize("rollout", [SHADOW, CANARY])
def test_a_rollback_ends_the_rollout_first_and_leaves_the_champion(runs, rollout):
    set_alias(runs, "champion", version="3")
    set_rollout(runs, rollout)
    assert roll_back(runs, check=take_no_notice) == ("3", "3", str(rollout))
    assert (get_rollout(runs), get_champion(runs)[0]) == (None, "3")


def test_a_rollback_of_a_rollout_asked_twice_does_not_go_back_two_steps(runs):
    set_alias(runs, "champion", version="3")
    set_rollout(runs, CANARY)
    roll_back(runs, check=take_no_notice)
    with pytest.raises(ValueError, match=r"taken back: 2 canary 0\.25, and version 3 answers"):
        roll_back(runs, check=take_no_notice)
    assert get_champion(runs)[0] == "3"


def test_a_rollback_after_a_promotion_killed_half_way_takes_the_promotion_back(runs):
    set_rollout(runs, CANARY)
    for alias, version in (("previous", "1"), ("champion", "2")):
        open_client(runs).set_registered_model_alias("fraud", alias, version)
    assert roll_back(runs, check=take_no_notice) == ("2", "1", None)


def test_a_rollout_that_somebody_took_back_does_not_begin_again(runs):
    set_rollout(runs, SHADOW)
    roll_back(runs, check=take_no_notice)
    set_rollout(runs, None)
    with pytest.raises(ValueError, match="the rollout of version 2 was taken back; train another"):
        set_rollout(runs, CANARY)
    assert get_rollout(runs) is None


def test_another_version_may_be_rolled_out_after_one_was_taken_back(runs):
    set_rollout(runs, SHADOW)
    roll_back(runs, check=take_no_notice)
    other = Rollout("3", "shadow", 0.0)
    set_rollout(runs, other)
    assert get_rollout(runs) == other


def test_once_the_champion_has_moved_a_rollback_takes_that_back(runs):
    set_rollout(runs, SHADOW)
    roll_back(runs, check=take_no_notice)
    set_alias(runs, "champion", version="3")
    assert roll_back(runs, check=take_no_notice) == ("3", "1", None)


@pytest.mark.parametrize(
    ("version", "reason"),
    [("9", "there is no version 9"), ("1", "version 1 is the champion; it needs no rollout")],
)
def test_a_version_that_cannot_be_rolled_out_is_refused(runs, version, reason):
    with pytest.raises(ValueError, match=reason):
        set_rollout(runs, Rollout(version, "shadow", 0.0))
    assert get_rollout(runs) is None


@pytest.mark.parametrize("text", ["nonsense", "2 canary much", "2 canary 1.5", "2 shadow 0.25"])
def test_a_tag_written_by_hand_that_is_no_rollout_is_an_error_and_can_be_taken_back(runs, text):
    write_tag(runs, text)
    with pytest.raises(ValueError):  # noqa: PT011 - as many messages as mistakes
        get_rollout(runs)
    assert roll_back(runs, check=take_no_notice)[2] == text
    assert get_rollout(runs) is None


def read_audit(folder: Path) -> list[dict[str, str]]:
    lines = (folder / AUDIT_FILE).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_audit_says_which_rollout_was_ended(runs, tmp_path):
    set_rollout(runs, CANARY)
    change = roll_back_champion(runs, folder=tmp_path, who="me")
    (line,) = read_audit(tmp_path)
    assert change.describe() == {"from": "1", "to": "1", "dropped": "2 canary 0.25"}
    del line["time"]
    assert line == {"action": "rollback", **change.describe(), "who": "me"}


def test_a_swap_to_the_challenger_ends_its_rollout(runs, tmp_path):
    set_rollout(runs, CANARY)
    swap_champion(runs, version="2", folder=tmp_path, who="me")
    assert (get_rollout(runs), find_version(runs, "previous")) == (None, "1")


def test_the_command_line_ends_a_rollout_and_goes_further_back_only_by_name(runs):
    set_alias(runs, "champion", version="3")
    set_rollout(runs, CANARY)

    def ask(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "throughline", "fraud", "rollback", "--runs", str(runs)]
        return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)

    first, second, third = ask(), ask(), ask("--to", "1")
    assert (first.returncode, second.returncode, third.returncode) == (0, 2, 0), first.stderr
    assert "--to" in second.stderr
    assert (get_champion(runs)[0], get_rollout(runs)) == ("1", None)
    assert [line["action"] for line in read_audit(runs / "serving")] == ["rollback", "swap"]


@pytest.mark.parametrize("by_hand", [(), ("3", "2")], ids=["quiet", "2 to 3 and back by hand"])
def test_the_loop_goes_back_to_the_champion_it_replaced_whoever_served_between(runs, by_hand):
    for version in ("2", *by_hand):
        set_alias(runs, "champion", version=version)
    config = load_fraud_config(changes={"runs": runs})
    for _ in range(2):  # a tick that was killed asks again
        loop_wiring.roll_back(config, "2", "1", "floor:v1")
    assert get_champion(runs)[0] == "1"
    last = read_audit(runs / "serving")[-1]
    assert (last["from"], last["to"], last["who"]) == ("2", "1", "tick (floor:v1)")


def test_the_loop_goes_back_although_somebody_took_a_rollout_back_before(runs):
    set_alias(runs, "champion", version="2")
    set_rollout(runs, Rollout("3", "shadow", 0.0))
    roll_back(runs, check=take_no_notice)
    loop_wiring.roll_back(load_fraud_config(changes={"runs": runs}), "2", "1", "floor:v1")
    assert get_champion(runs)[0] == "1"


def test_the_loop_takes_no_version_back_that_is_not_champion_any_more(runs):
    set_alias(runs, "champion", version="3")
    loop_wiring.roll_back(load_fraud_config(changes={"runs": runs}), "2", "1", "floor:v1")
    assert get_champion(runs)[0] == "3"
