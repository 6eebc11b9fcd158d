"""What must be true of every kind of model, and of each kind's own storage."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training import candidates
from training.calibration import IDENTITY
from training.candidates import Budget, TrainingRows, build_candidate
from training.encoding import Encoding
from training.gbdt import STARTING_PARAMETERS, FoldRows, fit_trees, tune_trees
from training.linear import fit_linear
from training.metrics import average_precision, roc_auc
from training.neural import NetworkSettings, TabularNetwork, fit_network
from training.onnx_graph import build_onnx
from training.preprocessing import compress, fit_preprocessing
from training.rows import LabelledRows
from training.scorers import MODEL_FILES, load_scorer

ENCODING = Encoding(("amount", "noise", "gap", "card_type"), {"card_type": ("a", "b", "c")})
TREES = {**STARTING_PARAMETERS, "num_trees": 40}
SETTINGS = NetworkSettings(max_epochs=6, batch_size=256)


def make_rows(num_rows=6000, seed=0):
    """Amount and card type raise the risk, noise does not, and a gap is itself a sign."""
    generator = np.random.default_rng(seed)
    amounts = generator.normal(size=num_rows)
    gaps = np.where(generator.random(num_rows) < 0.1, np.nan, generator.normal(size=num_rows))
    cards = generator.integers(0, 3, num_rows).astype(float)
    log_odds = -3.5 + 1.5 * amounts + 1.5 * np.isnan(gaps) + 1.0 * (cards == 2)
    matrix = np.column_stack([amounts, generator.normal(size=num_rows), gaps, cards])
    return matrix, generator.random(num_rows) < 1 / (1 + np.exp(-log_odds))


def fit(kind, matrix, is_fraud):
    if kind == "logistic_regression":
        return fit_linear(matrix, is_fraud, encoding=ENCODING)
    if kind == "lightgbm":
        return fit_trees(matrix, is_fraud, encoding=ENCODING, parameters=TREES, seed=0)
    if kind == "blend":
        return blend(0.5, fit("lightgbm", matrix, is_fraud), fit("pytorch", matrix, is_fraud))
    return fit_network(matrix, is_fraud, encoding=ENCODING, settings=SETTINGS).content


def blend(tree_weight, trees, network):
    weight = json.dumps({"tree_weight": tree_weight}).encode()
    return {"blend.json": weight, "model.txt": trees, "model.onnx": network}


@pytest.fixture(scope="module", params=MODEL_FILES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def content(kind):
    return fit(kind, *make_rows())


@pytest.fixture(scope="module")
def scorer(kind, content):
    return load_scorer(kind, content)


def test_it_beats_a_constant_and_the_amount_alone(scorer):
    matrix, is_fraud = make_rows(seed=1)

    score = average_precision(is_fraud, scorer.margins(matrix))

    assert score > 2 * is_fraud.mean()
    assert score > 1.1 * average_precision(is_fraud, matrix[:, 0])


def test_margins_are_log_odds(scorer):
    matrix, is_fraud = make_rows(num_rows=20_000, seed=2)

    probabilities = IDENTITY.apply(scorer.margins(matrix))

    assert probabilities.mean() == pytest.approx(is_fraud.mean(), rel=0.15)


def test_a_row_scores_the_same_alone_in_a_batch_and_in_any_order(scorer):
    matrix, _ = make_rows(num_rows=50, seed=1)
    margins = scorer.margins(matrix)

    alone = np.concatenate([scorer.margins(matrix[[row]]) for row in range(50)])

    np.testing.assert_allclose(alone, margins, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scorer.margins(matrix[::-1])[::-1], margins, rtol=0, atol=1e-6)


def test_scoring_leaves_the_matrix_as_it_was(scorer):
    matrix, _ = make_rows(num_rows=50)
    before = matrix.copy()

    scorer.margins(matrix)
    scorer.contributions(matrix)

    np.testing.assert_array_equal(matrix, before)


def test_a_higher_amount_is_riskier_and_so_is_a_gap(scorer):
    typical = np.array([[0.0, 0.0, 0.0, 0.0]])
    larger, with_gap = typical.copy(), typical.copy()
    larger[0, 0], with_gap[0, 2] = 2.0, np.nan

    assert scorer.margins(larger) > scorer.margins(typical) + 1
    assert scorer.margins(with_gap) > scorer.margins(typical) + 0.5


def test_anything_at_all_gets_a_finite_score(scorer):
    wild = np.array([[np.nan] * 4, [1e300, -1e300, np.inf, 2.0], [-np.inf, 0.0, 0.0, np.nan]])

    assert np.isfinite(scorer.margins(wild)).all()


def test_what_the_truth_depends_on_contributes_more_than_noise(scorer):
    matrix, _ = make_rows(num_rows=300, seed=1)

    shares = np.abs(scorer.contributions(matrix)).mean(axis=0)

    assert shares.shape == (4,)
    assert shares[0] > 3 * shares[1]


def test_fitting_twice_gives_the_same_file(kind, content):
    assert fit(kind, *make_rows()) == content


def test_shuffled_labels_give_chance(kind):
    matrix, is_fraud = make_rows()
    shuffled = np.random.default_rng(5).permutation(is_fraud)
    later, truth = make_rows(seed=3)

    scorer = load_scorer(kind, fit(kind, matrix, shuffled))
    dealt = np.random.default_rng(6).permutation(truth)

    assert roc_auc(dealt, scorer.margins(later)) == pytest.approx(0.5, abs=0.05)


def test_the_logistic_regression_is_scikit_learns():
    generator = np.random.default_rng(0)
    matrix = generator.gamma(2.0, 10.0, (2000, 3))
    is_fraud = generator.random(2000) < 0.1
    oracle = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-9, max_iter=1000))
    oracle.fit(compress(matrix), is_fraud)

    content = fit_linear(matrix, is_fraud, encoding=Encoding(("a", "b", "c"), {}))

    np.testing.assert_allclose(
        load_scorer("logistic_regression", content).margins(matrix),
        oracle.decision_function(compress(matrix)),
        atol=1e-4,
    )


def test_the_logistic_regressions_contributions_and_intercept_sum_to_the_margin():
    matrix, is_fraud = make_rows()
    content = fit("logistic_regression", matrix, is_fraud)
    scorer = load_scorer("logistic_regression", content)

    total = scorer.contributions(matrix).sum(axis=1) + json.loads(content)["intercept"]

    np.testing.assert_allclose(total, scorer.margins(matrix))


def test_the_trees_contributions_sum_to_the_margin_up_to_one_constant():
    matrix, is_fraud = make_rows()
    scorer = load_scorer("lightgbm", fit("lightgbm", matrix, is_fraud))

    rest = scorer.margins(matrix) - scorer.contributions(matrix).sum(axis=1)

    np.testing.assert_allclose(rest, rest[0], atol=1e-8)


def test_the_onnx_file_scores_as_torch_does_missing_and_unknown_values_included():
    matrix, _ = make_rows(num_rows=500)
    matrix[::7, 0], matrix[::5, 3] = np.nan, np.nan
    matrix[3, 1] = np.inf
    preprocessing = fit_preprocessing(make_rows()[0], encoding=ENCODING)
    network = TabularNetwork(4, ENCODING.vocabulary_sizes, settings=SETTINGS).eval()
    content = build_onnx(
        network.read_weights(), preprocessing=preprocessing, typical_row=np.full(4, np.nan)
    )

    with torch.inference_mode():
        expected = network(
            torch.from_numpy(preprocessing.standardise(matrix).astype(np.float32)),
            torch.from_numpy(preprocessing.code_categories(matrix)),
        ).numpy()

    np.testing.assert_allclose(load_scorer("pytorch", content).margins(matrix), expected, atol=1e-6)


def test_the_onnx_file_reads_the_raw_matrix_in_float64():
    model = onnx.load_from_string(fit("pytorch", *make_rows(num_rows=500)))
    (matrix,) = model.graph.input

    assert matrix.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    assert matrix.type.tensor_type.shape.dim[1].dim_value == 4


def test_the_network_keeps_its_best_epoch():
    matrix, is_fraud = make_rows(num_rows=2000)
    settings = NetworkSettings(max_epochs=15, batch_size=64, learning_rate=0.03, dropout=0.0)

    fitted = fit_network(matrix, is_fraud, encoding=ENCODING, settings=settings)
    epochs = fitted.best_epoch + 1
    shorter = NetworkSettings(**{**vars(settings), "max_epochs": epochs})
    stopped = fit_network(matrix, is_fraud, encoding=ENCODING, settings=shorter)

    assert epochs < len(fitted.valid_losses)  # it went on, got worse, and came back
    assert stopped.content == fitted.content


def test_training_the_network_leaves_torchs_own_randomness_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    fit_network(*make_rows(num_rows=500), encoding=ENCODING, settings=SETTINGS)

    assert torch.rand(1) == expected


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_blend_is_the_weighted_mean_of_both_models(weight):
    rows = make_rows(num_rows=1000)
    trees, network = fit("lightgbm", *rows), fit("pytorch", *rows)
    blended = load_scorer("blend", blend(weight, trees, network))
    parts = load_scorer("lightgbm", trees), load_scorer("pytorch", network)
    matrix, _ = make_rows(num_rows=100, seed=3)

    for name in ("margins", "contributions"):
        of_trees, of_network = (getattr(part, name)(matrix) for part in parts)
        expected = weight * of_trees + (1 - weight) * of_network
        np.testing.assert_allclose(getattr(blended, name)(matrix), expected, atol=1e-6)


def test_a_blend_whose_weight_is_none_is_refused():
    with pytest.raises(ValueError, match=r"a weight of 1\.5"):
        load_scorer("blend", blend(1.5, b"", b""))


def test_a_blend_of_fitted_candidates_fits_nothing_again(monkeypatch):
    matrix, is_fraud = make_rows(num_rows=3000)
    rows = LabelledRows(pd.DataFrame({"is_fraud": is_fraud}), matrix)
    training = TrainingRows(rows, make_folds(), rows, ENCODING)
    budget = Budget(num_trials=1, max_epochs=2, seed=0)
    fitted = {
        kind: build_candidate(kind, training, budget=budget) for kind in ("lightgbm", "pytorch")
    }
    monkeypatch.setattr(candidates, "fit_trees", None)
    monkeypatch.setattr(candidates, "tune_trees", None)
    monkeypatch.setattr(candidates, "fit_network", None)

    blended = build_candidate("blend", training, budget=budget, fitted=fitted)

    assert blended.content["model.txt"] == fitted["lightgbm"].content
    assert blended.content["model.onnx"] == fitted["pytorch"].content
    assert len(blended.curves["weight_average_precision"]) == 5
    ends = (fitted["pytorch"].selection_score, fitted["lightgbm"].selection_score)
    assert blended.curves["weight_average_precision"][0] == pytest.approx(ends[0])
    assert blended.curves["weight_average_precision"][-1] == pytest.approx(ends[1])
    assert max(blended.curves["weight_average_precision"]) >= max(ends)


def make_folds():
    folds = []
    for seed in (0, 1):
        matrix, is_fraud = make_rows(num_rows=3000, seed=seed)
        folds.append(FoldRows(matrix[:2000], is_fraud[:2000], matrix[2000:], is_fraud[2000:]))
    return tuple(folds)


def test_the_first_trial_is_the_sensible_guess():
    tuned = tune_trees(make_folds(), encoding=ENCODING, num_trials=1, seed=2)

    assert {**tuned.parameters, "num_trees": None} == {**STARTING_PARAMETERS, "num_trees": None}


def test_tuning_is_reproducible():
    first, again = (
        tune_trees(make_folds(), encoding=ENCODING, num_trials=4, seed=2) for _ in range(2)
    )

    assert first == again
    assert len(first.trial_scores) == 4
    assert set(first.parameters) == {*STARTING_PARAMETERS, "num_trees"}


def test_the_number_of_threads_does_not_change_the_trees():
    matrix, is_fraud = make_rows()

    one, two = (
        fit_trees(
            matrix, is_fraud, encoding=ENCODING, parameters=TREES, seed=0, num_threads=threads
        ).partition(b"parameters:")[0]
        for threads in (1, 2)
    )

    assert one == two


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_candidate_fitted_again_with_its_own_parameters_is_the_same_model(name):
    matrix, is_fraud = make_rows(num_rows=3000)
    rows = LabelledRows(pd.DataFrame({"is_fraud": is_fraud}), matrix)
    training = TrainingRows(rows, make_folds(), rows, ENCODING)
    budget = Budget(num_trials=1, max_epochs=2, seed=0)

    first = build_candidate(name, training, budget=budget)
    again = build_candidate(name, training, budget=budget, parameters=first.parameters)

    assert again.content == first.content
    assert again.selection_score == pytest.approx(first.selection_score, abs=0.01)
    for margins, before in zip(again.fold_margins, first.fold_margins, strict=True):
        np.testing.assert_allclose(margins, before, atol=1e-6)
    assert sum(first.importance.values()) == pytest.approx(1.0)
    assert set(json.loads(json.dumps(first.parameters))) == set(first.parameters)
