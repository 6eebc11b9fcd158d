"""The service's matrix is the one that training makes of the same features."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.fraud_rows import COLUMNS
from features.fraud_selection import FeatureSet
from serving.row_matrix import NEEDS_HISTORY, FeatureLayout, ModelInput
from training.encoding import Encoding, encode_features

NUMBERS = st.floats(allow_infinity=False) | st.just(np.nan)
OWN_NUMBERS, OWN_STRINGS = ("V1", "V2"), ("bank", "branch")
WORDS = ("a", "b", "ç", "never in training")
words = st.none() | st.sampled_from(WORDS)


@st.composite
def cases(draw):
    """A feature set, a model's encoding that reads some of it, and a batch."""
    computed = draw(st.lists(st.sampled_from(COLUMNS), unique=True, max_size=8))
    own = draw(st.lists(st.sampled_from(OWN_NUMBERS), unique=True))
    categorical = draw(st.lists(st.sampled_from(("card_type", *OWN_STRINGS)), unique=True))
    names = draw(st.permutations([*computed, *own]))
    feature_set = FeatureSet((*names, *categorical), tuple(categorical), {})
    read = [name for name in draw(st.permutations(feature_set.names)) if draw(st.booleans())]
    vocabularies = {
        name: tuple(draw(st.lists(st.sampled_from(WORDS[:3]), unique=True)))
        for name in read
        if name in categorical
    }
    rows = draw(st.integers(1, 4))
    matrix = np.array(
        draw(st.lists(NUMBERS, min_size=27 * rows, max_size=27 * rows)), dtype=np.float64
    ).reshape(rows, 27)
    extra = st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(OWN_NUMBERS, st.none() | NUMBERS),
            **dict.fromkeys(OWN_STRINGS, words),
        },
    )
    transactions = [SimpleNamespace(card_type=draw(words), extra=draw(extra)) for _ in range(rows)]
    return feature_set, Encoding(tuple(read), vocabularies), matrix, transactions


@settings(deadline=None)
@given(cases())
def test_a_batchs_matrix_is_what_training_makes_of_the_same_frame(case):
    feature_set, encoding, computed, transactions = case
    frame = pd.DataFrame(computed, columns=list(COLUMNS))
    frame["card_type"] = pd.Series([row.card_type for row in transactions], dtype=object)
    for name in OWN_NUMBERS:
        own = [row.extra.get(name) for row in transactions]
        frame[name] = np.array([np.nan if value is None else value for value in own])
    for name in OWN_STRINGS:
        frame[name] = pd.Series([row.extra.get(name) for row in transactions], dtype=object)
    rows = FeatureLayout(feature_set).arrange(computed, transactions)
    np.testing.assert_array_equal(rows.numbers, frame[list(feature_set.numeric)].to_numpy())
    assert [list(column) for column in rows.categories] == [
        frame[name].tolist() for name in feature_set.categorical
    ]
    np.testing.assert_array_equal(
        ModelInput(encoding, feature_set).encode(rows), encode_features(frame, encoding=encoding)
    )


def test_a_model_that_reads_what_the_store_lacks_is_refused_by_name():
    with pytest.raises(ValueError, match="the store lacks: V2"):
        ModelInput(Encoding(("V1", "V2"), {}), FeatureSet(("V1",), (), {}))


def test_the_clock_and_the_amount_need_no_history_and_all_else_does():
    without = {name for name, needs in zip(COLUMNS, NEEDS_HISTORY, strict=True) if not needs}
    assert without == {
        *("amount_log", "hour_sin", "hour_cos", "day_of_week", "is_weekend", "is_night")
    }
