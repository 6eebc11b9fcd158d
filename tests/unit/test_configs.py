"""A configuration is whole and right, or an error that names the key."""

from pathlib import Path

import pytest
import yaml

from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config


def write_config(folder: Path, **changes: object) -> Path:
    document = yaml.safe_load(DEFAULT_FRAUD_CONFIG.read_text()) | changes
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_shipped_configuration_is_valid_and_its_size_is_one_it_lists():
    config = load_fraud_config()
    assert config.world_size == config.data.sizes["demo"]


def test_an_unknown_key_is_an_error_that_names_file_and_key(tmp_path):
    path = write_config(tmp_path, sead=3)
    with pytest.raises(ValueError, match=r"mine\.yaml: sead: "):
        load_fraud_config(path)


def test_an_unknown_key_inside_a_section_is_named_with_its_section():
    with pytest.raises(ValueError, match=r"^--set training\.num_trails: no such setting$"):
        load_fraud_config(changes={"training.num_trails": 3})


def test_a_changed_section_is_blamed_for_what_it_holds_and_the_file_for_the_rest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(DEFAULT_FRAUD_CONFIG.read_text() + "sead: 3\n")
    with pytest.raises(ValueError, match=r"^--set load\.num_requests: .*; \S*mine\.yaml: sead: "):
        load_fraud_config(
            path, changes={"load": {"num_requests": 0, "num_connections": 1, "timeout_seconds": 1}}
        )


def test_a_change_below_a_single_value_is_refused():
    with pytest.raises(ValueError, match=r"^--set seed\.first: seed is one value"):
        load_fraud_config(changes={"seed.first": 3})


def test_a_missing_section_is_an_error_that_names_it(tmp_path):
    document = yaml.safe_load(DEFAULT_FRAUD_CONFIG.read_text())
    del document["serving"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match="serving: Field required"):
        load_fraud_config(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("data.never_reported_share", 1.5),
        ("data.start_time", "2026-01-01T00:00:00"),  # no time zone
        ("training.num_folds", 0),
        ("serving.port", 70_000),
        ("training.costs.review_fee", -1),
        ("profile", "cloud"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_the_key(key, value):
    with pytest.raises(ValueError, match=key):
        load_fraud_config(changes={key: value})


@pytest.mark.parametrize("key", ["retraining.min_alarms", "retraining.min_joint_alarms"])
def test_an_alarm_that_could_never_go_off_often_enough_is_refused(key):
    with pytest.raises(ValueError, match=r"^--set retraining: a trigger must be able to go off"):
        load_fraud_config(changes={key: 4})


def test_an_error_is_one_line():
    with pytest.raises(ValueError, match="seed") as caught:
        load_fraud_config(changes={"seed": "many", "profile": "none"})
    assert "\n" not in str(caught.value)


def test_a_size_the_file_does_not_list_is_an_error_that_lists_the_sizes():
    config = load_fraud_config(changes={"data.size": "huge"})
    with pytest.raises(ValueError, match="'huge'; it must be one of: demo, full"):
        _ = config.world_size


def test_changes_replace_single_values_and_leave_their_neighbours():
    config = load_fraud_config(changes={"training.num_trials": 2, "runs": "elsewhere"})
    default = load_fraud_config()
    assert config.training.num_trials == 2
    assert config.training.num_folds == default.training.num_folds
    assert config.runs == Path("elsewhere")


def test_a_configuration_cannot_be_changed_after_it_was_read():
    with pytest.raises(ValueError, match="frozen"):
        load_fraud_config().seed = 3


def test_a_missing_file_is_an_error_that_says_how_to_name_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml; pass one with --config"):
        load_fraud_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(("text", "reason"), [("", "no settings"), ("a: [1", "not YAML")])
def test_a_file_that_holds_no_settings_is_an_error_that_names_it(tmp_path, text, reason):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.yaml .*{reason}"):
        load_fraud_config(path)
