import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import lightgbm
import numpy as np
import pandas as pd
import pytest

from training.amount_rule import AmountRule
from training.artefact import Artefact, load_artefact, load_reference, save_artefact
from training.calibration import Calibration
from training.encoding import Encoding, encode_features
from training.gbdt import fit_trees
from training.linear import fit_linear
from training.model_spec import ModelSpec, read_spec
from training.operating_point import Thresholds
from training.request_model import FallbackSpec
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


FALLBACK = FallbackSpec(
    features=("card_type", "amount"),
    calibration=Calibration(slope=1.1, offset=0.3),
    thresholds=Thresholds(review=0.4, decline=0.7, min_review_amount=3.0),
    rule=AmountRule(threshold=70.0, decision="review", share_below=0.1, share_above=0.9),
)


def save_with_fallback(folder):
    """Save a model whose request model has its inputs in another order."""
    features = make_features()
    matrix = encode_features(features, encoding=ENCODING)
    own = Encoding(FALLBACK.features, ENCODING.vocabularies)
    request_content = fit_trees(
        matrix[:, [2, 0]],
        matrix[:, 0] > 60,
        encoding=own,
        parameters={"num_trees": 5, "min_data_in_leaf": 5},
        seed=0,
    )
    save_artefact(
        folder,
        spec=replace(SPEC, fallback=FALLBACK),
        content=fit_linear(matrix, matrix[:, 0] > 60, encoding=ENCODING),
        golden_features=features.head(6),
        reference_features=features,
        request_content=request_content,
    )
    return folder


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


def test_a_specification_with_a_fallback_survives_json():
    spec = replace(SPEC, fallback=FALLBACK)
    assert read_spec(json.loads(json.dumps(spec.to_document()))) == spec


def test_a_model_answers_without_history_from_the_requests_columns_of_the_whole_matrix(tmp_path):
    artefact = load_artefact(save_with_fallback(tmp_path / "model"))
    matrix = encode_features(make_features(seed=2), encoding=ENCODING)
    booster = lightgbm.Booster(model_file=str(tmp_path / "model" / "request_model.txt"))
    margins = booster.predict(matrix[:, [2, 0]], raw_score=True)

    scores = artefact.predict_request(matrix)

    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-(1.1 * margins + 0.3))), rtol=1e-12)
    without_history = matrix.copy()
    without_history[:, 1] = np.nan
    np.testing.assert_array_equal(artefact.predict_request(without_history), scores)


def test_the_fallback_has_thresholds_of_its_own_and_a_rule_below_it(tmp_path):
    artefact = load_artefact(save_with_fallback(tmp_path / "model"))
    scores, amounts = np.array([0.3, 0.5, 0.75]), np.full(3, 10.0)

    assert artefact.decide(scores, amounts).tolist() == ["review"] * 3
    assert artefact.decide_request(scores, amounts).tolist() == ["approve", "review", "decline"]
    assert artefact.rule.scores(np.array([69.0, 70.0])).tolist() == [0.1, 0.9]
    assert artefact.rule.decide(np.array([69.0, 70.0])).tolist() == ["approve", "review"]


def test_a_model_of_an_earlier_release_loads_and_says_that_it_has_no_fallback(folder):
    artefact = load_artefact(folder)

    assert (artefact.request_model, artefact.rule) == (None, None)
    with pytest.raises(ValueError, match="throughline fraud train"):
        artefact.predict_request(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="throughline fraud train"):
        artefact.decide_request(np.zeros(1), np.zeros(1))


def test_a_changed_or_missing_request_model_is_refused_by_name(tmp_path):
    path = save_with_fallback(tmp_path / "model") / "request_model.txt"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"leaf_value=", b"leaf_value=9"))
    assert_refused(path.parent, "request_model.txt", "has changed")
    path.unlink()
    assert_refused(path.parent, "request_model.txt", "is missing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fallback: fallback["calibration"].update(offset=0.5), "request_model.txt"),
        (lambda fallback: fallback["rule"].update(share_above=0.8), "rule"),
        (lambda fallback: fallback["rule"].update(threshold=7.0), "rule"),
    ],
)
def test_a_fallback_that_scores_its_golden_rows_differently_is_refused(tmp_path, change, words):
    folder = save_with_fallback(tmp_path / "model")
    rewrite(folder / "model.json", lambda document: change(document["fallback"]))
    assert_refused(folder, words, "golden_rows.json")


def test_a_request_model_that_reads_what_the_model_lacks_is_refused(tmp_path):
    folder = save_with_fallback(tmp_path / "model")
    rewrite(
        folder / "model.json",
        lambda document: document["fallback"].update(features=["card_type", "iban"]),
    )
    assert_refused(folder, "iban")


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

    assert_refused(
        folder, "model.json", "'oracle'", "logistic_regression, lightgbm, pytorch, blend"
    )


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
