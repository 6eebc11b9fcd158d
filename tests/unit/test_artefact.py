import hashlib
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from training.artefact import Artefact, load_artefact, load_reference, save_artefact
from training.calibration import Calibration
from training.encoding import Encoding
from training.linear import fit_linear
from training.model_spec import ModelSpec, read_spec
from training.operating_point import Thresholds
from training.scorers import load_scorer

ENCODING = Encoding(("amount", "gap", "card_type"), {"card_type": ("credit", "debit")})
SPEC = ModelSpec(
    kind="logistic_regression",
    encoding=ENCODING,
    calibration=Calibration(slope=0.9, offset=-0.2),
    thresholds=Thresholds(review=0.2, decline=0.8, min_review_amount=3.0),
    request_features=("amount", "card_type"),
    train_start_time="2026-01-01T00:00:00+00:00",
    train_end_time="2026-02-01T00:00:00+00:00",
    data_hash="0" * 64,
    metrics={"average_precision": 0.6, "average_precision_interval": [0.5, 0.7]},
    parameters={"l2_penalty": 1.0},
)


def make_features(num_rows=200, seed=0):
    generator = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{row}" for row in range(num_rows)],
            "event_time": pd.date_range("2026-01-01", periods=num_rows, freq="h", tz="UTC"),
            "amount": generator.gamma(2.0, 20.0, num_rows),
            "gap": np.where(generator.random(num_rows) < 0.2, np.nan, generator.random(num_rows)),
            "card_type": generator.choice(["credit", "debit", "gift"], num_rows),
        }
    )


@pytest.fixture
def folder(tmp_path):
    features = make_features()
    amounts = features["amount"].to_numpy()
    matrix = np.column_stack([amounts, features["gap"], amounts > 30])
    content = fit_linear(matrix, amounts > 60, encoding=ENCODING)
    golden = features.head(6).astype(object)
    golden.loc[5] = None
    save_artefact(
        tmp_path / "model",
        spec=SPEC,
        content=content,
        golden_features=golden,
        reference_features=features,
    )
    return tmp_path / "model"


def rewrite(path, change):
    """Change a JSON file and the manifest with it, as somebody who means it would."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    manifest = path.parent / "manifest.json"
    hashes = json.loads(manifest.read_text())
    hashes["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(hashes))


def assert_refused(folder, *words):
    with pytest.raises(ValueError, match=r"\S") as refusal:
        load_artefact(folder)
    message = str(refusal.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_saved_model_scores_as_it_did_and_says_what_it_is(folder):
    loaded = load_artefact(folder, version="7")
    scorer = load_scorer("logistic_regression", (folder / "coefficients.json").read_bytes())
    features = make_features(seed=1)

    assert loaded.spec == SPEC
    assert loaded.version == "7"
    assert loaded.features == ENCODING.features
    np.testing.assert_array_equal(
        loaded.predict(features), Artefact(SPEC, scorer).predict(features)
    )


def test_a_specification_survives_json():
    assert read_spec(json.loads(json.dumps(SPEC.to_document()))) == SPEC


def test_decisions_follow_the_thresholds(folder):
    decisions = load_artefact(folder).decide(np.array([0.1, 0.5, 0.9]), np.full(3, 10.0))

    assert decisions.tolist() == ["approve", "review", "decline"]


def test_reasons_are_the_largest_contributions_first(folder):
    artefact = load_artefact(folder)
    features = make_features().iloc[[3, 4]]

    reasons = artefact.explain(features, top=2)

    assert [len(row) for row in reasons] == [2, 2]
    for row in reasons:
        sizes = [abs(contribution) for _, contribution in row]
        assert sizes == sorted(sizes, reverse=True)
        assert {name for name, _ in row} <= set(ENCODING.features)


def test_the_reference_holds_features_and_scores_in_time_order(folder):
    reference = load_reference(folder)

    assert list(reference) == ["event_time", *ENCODING.features, "score"]
    assert reference["event_time"].is_monotonic_increasing
    np.testing.assert_array_equal(
        reference["score"], load_artefact(folder).predict(make_features())
    )


def test_an_earlier_model_in_the_same_place_is_replaced_and_nothing_else_is_left(folder):
    save_artefact(
        folder,
        spec=SPEC,
        content=(folder / "coefficients.json").read_bytes(),
        golden_features=make_features(),
        reference_features=make_features(num_rows=10),
    )

    assert len(load_reference(folder)) == 10
    assert [item.name for item in folder.parent.iterdir()] == ["model"]


def test_a_model_that_cannot_be_written_leaves_the_earlier_one(folder):
    with pytest.raises(KeyError):
        save_artefact(
            folder,
            spec=SPEC,
            content=(folder / "coefficients.json").read_bytes(),
            golden_features=make_features().drop(columns="gap"),
            reference_features=make_features(),
        )

    load_artefact(folder)
    assert [item.name for item in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["coefficients.json", "model.json", "golden_rows.json"])
def test_a_truncated_file_is_refused_by_name(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])

    assert_refused(folder, name, "has changed")


@pytest.mark.parametrize("name", ["coefficients.json", "reference.parquet"])
def test_one_changed_byte_is_refused_by_name(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    assert_refused(folder, name, "has changed")


@pytest.mark.parametrize("name", ["coefficients.json", "golden_rows.json", "manifest.json"])
def test_a_missing_file_is_refused_by_name(folder, name):
    (folder / name).unlink()

    assert_refused(folder, name, "is missing")


def test_a_file_the_manifest_does_not_vouch_for_is_not_opened(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]["coefficients.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    assert_refused(folder, "manifest.json", "does not list coefficients.json")


def test_a_manifest_cannot_point_outside_the_folder(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder.parent / "elsewhere").write_text("")
    manifest["sha256"]["../elsewhere"] = hashlib.sha256(b"").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))

    assert_refused(folder, "elsewhere")


def test_a_broken_manifest_is_refused_by_name(folder):
    (folder / "manifest.json").write_text("{}")

    assert_refused(folder, "manifest.json", "not a manifest")


def test_golden_rows_that_score_differently_are_refused(folder):
    rewrite(folder / "coefficients.json", lambda document: document.update(intercept=9.0))

    assert_refused(folder, "coefficients.json", "golden_rows.json")


def test_a_golden_row_of_which_nothing_is_known_is_among_them(folder):
    rows = json.loads((folder / "golden_rows.json").read_text())["rows"]

    assert rows[-1] == dict.fromkeys(ENCODING.features)


def test_an_unknown_kind_is_refused(folder):
    rewrite(folder / "model.json", lambda document: document.update(kind="oracle"))

    assert_refused(folder, "model.json", "'oracle'", "logistic_regression, lightgbm, pytorch")


def test_no_file_is_a_pickle(folder):
    for path in folder.iterdir():
        assert path.suffix in {".json", ".parquet"}
        assert not path.read_bytes().startswith(b"\x80")


def test_loading_needs_neither_torch_nor_mlflow(folder):
    code = (
        "import sys; from pathlib import Path; from training.artefact import load_artefact; "
        "load_artefact(Path(sys.argv[1])); "
        "print(sorted({'torch', 'mlflow', 'optuna', 'onnx'} & set(sys.modules)))"
    )

    found = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "[]"
