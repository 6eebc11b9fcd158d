import numpy as np
import pandas as pd
import pytest

from training.encoding import MAX_CATEGORIES, Encoding, build_encoding, encode_features
from training.preprocessing import MAX_DEVIATIONS, fit_preprocessing, read_preprocessing

ENCODING = Encoding(("amount", "count", "card_type"), {"card_type": ("credit", "debit")})


def make_features(**columns):
    rows = {"amount": [1.0, 2.0], "count": [3.0, 4.0], "card_type": ["debit", "credit"]}
    return pd.DataFrame({**rows, **columns})


def test_columns_come_in_the_encodings_order_whatever_the_frames():
    features = make_features()[["card_type", "count", "amount"]]

    assert encode_features(features, encoding=ENCODING).tolist() == [[1, 3, 1], [2, 4, 0]]


def test_missing_numbers_and_unknown_categories_are_nan():
    features = make_features(amount=[None, 2.0], card_type=["gift", None])

    encoded = encode_features(features, encoding=ENCODING)

    assert np.isnan(encoded).tolist() == [[True, False, True], [False, False, True]]


def test_a_numeric_column_of_nothing_but_missing_values_is_all_nan():
    encoded = encode_features(make_features(amount=[None, None]), encoding=ENCODING)

    assert np.isnan(encoded[:, 0]).all()


def test_a_row_encodes_the_same_alone_and_in_a_batch():
    features = make_features()

    alone = [encode_features(features.iloc[[row]], encoding=ENCODING) for row in (0, 1)]

    np.testing.assert_array_equal(np.vstack(alone), encode_features(features, encoding=ENCODING))


def test_encoding_leaves_the_frame_as_it_was():
    features = make_features(card_type=["gift", None])
    before = features.copy(deep=True)

    encode_features(features, encoding=ENCODING)

    pd.testing.assert_frame_equal(features, before)


def test_an_absent_column_is_named():
    with pytest.raises(ValueError, match="lack the columns: count, card_type"):
        encode_features(make_features()[["amount"]], encoding=ENCODING)


def test_text_where_a_number_belongs_names_the_column():
    with pytest.raises(ValueError, match=r"must hold numbers \(amount\)"):
        encode_features(make_features(amount=["a lot", "2"]), encoding=ENCODING)


def test_vocabularies_are_sorted_and_keep_the_most_frequent_categories():
    rare = [f"rare {number}" for number in range(MAX_CATEGORIES + 5)]
    features = pd.DataFrame({"shop": [*rare, "z", "z", "a", "a", None]})

    vocabulary = build_encoding(features, names=["shop"], categorical=["shop"]).vocabularies["shop"]

    assert len(vocabulary) == MAX_CATEGORIES
    assert {"a", "z"} <= set(vocabulary)
    assert list(vocabulary) == sorted(vocabulary)


def test_standardised_training_columns_have_mean_zero_and_deviation_one():
    matrix = np.random.default_rng(0).normal(5.0, 3.0, (500, 2))
    learnt = fit_preprocessing(matrix, encoding=Encoding(("a", "b"), {}))

    standardised = learnt.standardise(matrix)

    np.testing.assert_allclose(standardised.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(standardised.std(axis=0), 1.0)


def test_only_columns_with_gaps_in_training_get_an_indicator():
    matrix = np.array([[1.0, np.nan], [2.0, 5.0]])
    learnt = fit_preprocessing(matrix, encoding=Encoding(("a", "b"), {}))

    assert learnt.standardise(np.array([[np.nan, np.nan]]))[0, 2:].tolist() == [1.0]
    assert learnt.standardise(np.array([[9.0, 9.0]]))[0, 2:].tolist() == [0.0]


def test_any_input_becomes_finite():
    matrix = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]])
    learnt = fit_preprocessing(matrix, encoding=Encoding(("a", "empty"), {}))

    wild = np.array([[np.inf, 1e300], [-np.inf, np.nan], [1e308, -np.inf]])

    assert np.isfinite(learnt.standardise(wild)).all()
    assert np.abs(learnt.standardise(wild)).max() == MAX_DEVIATIONS


def test_one_hot_has_a_column_per_known_category_and_none_for_unknown():
    encoding = Encoding(("shop",), {"shop": ("a", "b", "c")})
    matrix = np.array([[2.0], [np.nan], [0.0]])
    learnt = fit_preprocessing(matrix, encoding=encoding)

    assert learnt.one_hot(matrix).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert learnt.code_categories(matrix).tolist() == [[3], [0], [1]]


def test_every_prepared_column_is_traced_to_the_feature_it_came_from():
    matrix = np.array([[np.nan, 1.0, 0.0], [2.0, 3.0, 1.0]])
    learnt = fit_preprocessing(matrix, encoding=ENCODING)

    assert learnt.trace_columns().tolist() == [0, 1, 0, 2, 2]


def test_preprocessing_survives_json():
    matrix = np.array([[np.nan, 1.0, 0.0], [2.0, 3.0, 1.0]])
    learnt = fit_preprocessing(matrix, encoding=ENCODING)
    again = read_preprocessing(learnt.to_document())

    np.testing.assert_array_equal(again.standardise(matrix), learnt.standardise(matrix))
    np.testing.assert_array_equal(again.one_hot(matrix), learnt.one_hot(matrix))
