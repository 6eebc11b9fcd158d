"""A few rows through LightGBM without its cost per call: the same margins, one C call per row.

``Booster.predict`` checks, converts and allocates for some 20 us before it looks at a tree.
LightGBM's single-row functions do that once, when a model is loaded; a compiled loop then calls
them row by row. A handle is not safe for two threads at once: the loop keeps the interpreter's
lock, a few microseconds a row, so no two calls meet.

Source: LightGBM's C API, ``LGBM_BoosterPredictForMatSingleRowFastInit`` and what it refers to.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable

import lightgbm
import numpy as np
from numba import njit

from training.encoding import Floats

RAW_SCORE = 1
FLOAT64 = 1
ALL_TREES = -1
PARAMETERS = b"num_threads=1 verbosity=-1"


class TreeRows:
    """A LightGBM model that scores rows one by one.

    Args:
        content: LightGBM's text format.
        num_features: How many columns a row has.

    Raises:
        ValueError: If LightGBM cannot read the model.
    """

    def __init__(self, content: bytes, *, num_features: int) -> None:
        # the library is the one that the package has loaded, the function objects are our own:
        # their argument types are set here
        self._library = ctypes.CDLL(lightgbm.libpath._LIB._name)
        booster, config = ctypes.c_void_p(), ctypes.c_void_p()
        num_trees = ctypes.c_int()
        self._check(
            self._library.LGBM_BoosterLoadModelFromString(
                ctypes.c_char_p(content), ctypes.byref(num_trees), ctypes.byref(booster)
            )
        )
        weakref.finalize(self, _free, self._library, booster, config)
        self._check(
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                booster,
                ctypes.c_int(RAW_SCORE),
                ctypes.c_int(0),
                ctypes.c_int(ALL_TREES),
                ctypes.c_int(FLOAT64),
                ctypes.c_int32(num_features),
                ctypes.c_char_p(PARAMETERS),
                ctypes.byref(config),
            )
        )
        self._num_features = num_features
        self._config = int(config.value or 0)
        self._predict = self._library.LGBM_BoosterPredictForMatSingleRowFast
        self._predict.argtypes = [ctypes.c_size_t] * 4
        self._predict.restype = ctypes.c_int

    def margins(self, matrix: Floats) -> Floats:
        """Return log-odds of fraud for raw columns ``(rows, features)``. Shape ``(rows,)``.

        Raises:
            ValueError: If the rows have another number of columns: LightGBM would read beyond them.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self._num_features:
            raise ValueError(
                f"the matrix has shape {matrix.shape}; the model reads {self._num_features} columns"
            )
        rows = np.ascontiguousarray(matrix, dtype=np.float64)
        margins = np.empty(len(rows))
        if not _predict_rows(self._predict, self._config, rows, margins):
            self._check(-1)
        return margins

    def _check(self, status: int) -> None:
        if status != 0:
            get_error = self._library.LGBM_GetLastError
            get_error.restype = ctypes.c_char_p
            raise ValueError(f"LightGBM: {get_error().decode()}")


def _free(library: ctypes.CDLL, booster: ctypes.c_void_p, config: ctypes.c_void_p) -> None:
    """Give the memory back; the configuration refers to its booster and goes first."""
    if config:
        library.LGBM_FastConfigFree(config)
    library.LGBM_BoosterFree(booster)


@njit(cache=True)
def _predict_rows(
    predict: Callable[[int, int, int, int], int], config: int, rows: Floats, margins: Floats
) -> bool:
    """Call LightGBM for each row; tell whether all went well."""
    length = np.zeros(1, dtype=np.int64)
    row_bytes = rows.itemsize * rows.shape[1]
    for row in range(len(rows)):
        status = predict(
            config,
            rows.ctypes.data + row * row_bytes,
            length.ctypes.data,
            margins.ctypes.data + row * margins.itemsize,
        )
        if status != 0:
            return False
    return True
