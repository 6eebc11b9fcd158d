"""A CSV or Parquet file becomes a frame of the columns asked for; a broken file, one clear line.

Invariant: rows keep the file's order, a line with a field too many or too few is an error, and
columns asked for as text are not guessed at: an id of ``00123`` keeps its zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

CSV_ENDINGS = (".csv", ".csv.gz", ".csv.zst")
PARQUET_ENDINGS = (".parquet", ".pq")
MISSING_TEXTS = ["", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"]
PARSING = pacsv.ParseOptions(newlines_in_values=True)


def read_column_names(path: Path) -> list[str]:
    """Read the names of a file's columns, in order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither CSV nor Parquet, is empty or broken, or has two columns of the
            same name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; check the path given as --transactions")
    with _explain(path):
        if _is_parquet(path):
            names = list(pq.read_schema(path).names)
        else:
            with pacsv.open_csv(path, parse_options=PARSING) as reader:
                names = list(reader.schema.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has more than one column named {', '.join(twice)}; rename them")
    return names


def read_table(path: Path, *, columns: Sequence[str], as_text: Sequence[str]) -> pd.DataFrame:
    """Read some columns of a file.

    Args:
        path: A CSV file (UTF-8, commas, one header line) or a Parquet file.
        columns: What to read, all of them among the file's.
        as_text: Those not to guess a type for in CSV, which has none.

    Returns:
        One row per row of the file, in its order.

    Raises:
        ValueError: If the file is broken or holds no rows.
    """
    with _explain(path):
        if _is_parquet(path):
            rows = pd.read_parquet(path, columns=list(columns))[list(columns)].reset_index(
                drop=True
            )
        else:
            rows = _read_csv(path, columns=columns, as_text=as_text)
    if rows.empty:
        raise ValueError(f"{path} has a header but no rows")
    return rows


def _read_csv(path: Path, *, columns: Sequence[str], as_text: Sequence[str]) -> pd.DataFrame:
    """Read every column as text first, so that its type is decided by all of its values."""
    conversion = pacsv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns, pa.string()),
        null_values=MISSING_TEXTS,
        strings_can_be_null=True,
    )
    table = pacsv.read_csv(path, parse_options=PARSING, convert_options=conversion)
    return pd.DataFrame(
        {
            name: (table[name] if name in as_text else _guess_type(table[name])).to_pandas()
            for name in columns
        }
    )


def _guess_type(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make numbers of texts that all are numbers, flags of true and false, and leave the rest."""
    for kind in (pa.float64(), pa.bool_()):
        try:
            return pc.cast(pc.utf8_trim_whitespace(texts), kind)
        except pa.ArrowInvalid:
            continue
    return texts


def _is_parquet(path: Path) -> bool:
    """Tell Parquet from CSV by the file's ending."""
    if path.name.lower().endswith(PARQUET_ENDINGS):
        return True
    if path.name.lower().endswith(CSV_ENDINGS):
        return False
    allowed = ", ".join((*CSV_ENDINGS, *PARQUET_ENDINGS))
    raise ValueError(f"{path} must end in one of: {allowed}")


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Turn what readers raise on a broken file into one line that names it."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is broken or not what its ending says: {reason}") from error
