"""A user's own file and a YAML mapping become transactions and labels, ready for the contract.

The mapping says which of the file's columns is which of ours; what it does not name passes through
as an extra column. A mapping file::

    columns:
      transaction_id: TransactionID
      event_time: {column: TransactionDT, unit: s, origin: 2017-12-01T00:00:00Z}
      customer_id: [card1, addr1]        # several columns, joined by "|"
      amount: TransactionAmt
      is_fraud: isFraud
    keep: all                            # or a list of the extra columns to keep
    drop: [V107, V117]

A time may also be ``{column: paid_at, time_zone: Europe/Paris}`` for local times without an offset,
or have a ``format: "%d/%m/%Y %H:%M"``; plain ``paid_at`` takes ISO times with an offset. Without
``label_time`` a label arrives the label delay after its event; a row without a value for
``is_fraud`` has no label. Invariant: one transaction per row of the file, in the file's order, and
no label column among the extra ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import ValidationError

from configs.setting_types import Frozen
from data.column_types import convert_to_text
from data.file_tables import read_column_names, read_table
from data.file_times import TimeColumn, read_times
from data.fraud_columns import TRANSACTION_COLUMNS
from data.fraud_contract import NUMBER_COLUMNS, REQUIRED_COLUMNS

REQUIRED_NAMES = (*REQUIRED_COLUMNS, "is_fraud")
LABEL_NAMES = ("is_fraud", "label_time")
TIME_NAMES = ("event_time", "label_time")
TEXT_NAMES = tuple(set(TRANSACTION_COLUMNS) - {*NUMBER_COLUMNS, "event_time"})
JOINT = "|"


class FileMapping(Frozen):
    """Which column of a file is which of ours, and which others to take along.

    Attributes:
        columns: Our name to the file's: one column, several for an id, or a ``TimeColumn``.
        keep: ``all`` other columns, or only those named.
        drop: Columns not to take along.
    """

    columns: dict[str, str | tuple[str, ...] | TimeColumn]
    keep: Literal["all"] | tuple[str, ...] = "all"
    drop: tuple[str, ...] = ()

    def find_sources(self, name: str) -> tuple[str, ...]:
        """Name the file's columns that make up our column ``name``."""
        source = self.columns[name]
        if isinstance(source, TimeColumn):
            return (source.column,)
        return (source,) if isinstance(source, str) else source


def load_file_mapping(path: Path) -> FileMapping:
    """Read and check a mapping.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not YAML, names a column the contract does not have, lacks a required
            one, or gives it in a form it cannot have.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no mapping at {path}; check the path given as --mapping")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        _check_document(document)
        mapping = FileMapping.model_validate(document)
    except ValidationError as error:
        raise ValueError(f"{path}: {_name_first(error)}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return mapping


def load_mapped_file(
    path: Path, *, mapping: Path, label_delay_days: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a user's file into transactions and labels.

    Args:
        path: A CSV or Parquet file.
        mapping: The YAML file that says what its columns are.
        label_delay_days: From event to label where the mapping names no ``label_time``.

    Returns:
        Transactions with the columns mapped and the extra ones, and a label for each row whose
        truth is known, both in the file's order; not yet held against the contract.

    Raises:
        FileNotFoundError: If either file does not exist.
        ValueError: If either is broken or they do not fit; the message names the column.
    """
    file_mapping = load_file_mapping(mapping)
    names = read_column_names(path)
    _check_fit(file_mapping, names=names, file=path, mapping=mapping)
    extras = _choose_extras(file_mapping, names=names)
    sources = [
        column for name in file_mapping.columns for column in file_mapping.find_sources(name)
    ]
    rows = read_table(
        path,
        columns=list(dict.fromkeys([*sources, *extras])),
        as_text=_find_text_sources(file_mapping, extras=extras),
    )
    columns = {
        name: _read_column(rows, name=name, mapping=file_mapping)
        for name in (*TRANSACTION_COLUMNS, *LABEL_NAMES)
        if name in file_mapping.columns
    }
    labels = pd.DataFrame(
        {"transaction_id": columns["transaction_id"], "is_fraud": columns.pop("is_fraud")}
    )
    delay = pd.Timedelta(days=label_delay_days).as_unit("us")
    labels["label_time"] = columns.pop("label_time", columns["event_time"] + delay)
    transactions = pd.DataFrame(columns | {name: rows[name] for name in extras})
    is_known = labels["is_fraud"].notna()
    if not is_known.any():
        source = file_mapping.find_sources("is_fraud")[0]
        raise ValueError(f"no row of {path} has a value in column {source} (is_fraud)")
    return transactions, labels[is_known].reset_index(drop=True)


def _check_document(document: object) -> None:
    """Refuse a mapping without the required columns or with ones there are not."""
    if not isinstance(document, dict) or not isinstance(document.get("columns"), dict):
        raise ValueError("a mapping starts with 'columns:', one line for each column of ours")
    columns = document["columns"]
    allowed = (*TRANSACTION_COLUMNS, *LABEL_NAMES)
    for name, source in columns.items():
        if name not in allowed:
            raise ValueError(f"columns.{name} is not ours; allowed: {', '.join(allowed)}")
        if isinstance(source, list) and (name not in TEXT_NAMES or not source):
            raise ValueError(f"columns.{name} takes one column of the file, not a list of them")
        if isinstance(source, dict):
            if name not in TIME_NAMES:
                raise ValueError(f"columns.{name} takes the name of a column, not settings")
            _check_time(name, source)
    missing = [name for name in REQUIRED_NAMES if name not in columns]
    if missing:
        raise ValueError(f"columns.{missing[0]} is missing: say which column of the file it is")


def _check_time(name: str, source: dict[str, object]) -> None:
    """Check the settings of a time, naming which one is wrong."""
    try:
        TimeColumn.model_validate(source)
    except ValidationError as error:
        raise ValueError(f"columns.{name}: {_name_first(error)}") from error


def _name_first(error: ValidationError) -> str:
    """Name the first wrong key and what is wrong with it."""
    problem = error.errors()[0]
    keys = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{keys}: {message}" if keys else message


def _check_fit(
    file_mapping: FileMapping, *, names: Sequence[str], file: Path, mapping: Path
) -> None:
    """Refuse a mapping that names columns the file does not have."""
    asked = {f"columns.{name}": file_mapping.find_sources(name) for name in file_mapping.columns}
    asked["keep"] = () if file_mapping.keep == "all" else file_mapping.keep
    asked["drop"] = file_mapping.drop
    for key, columns in asked.items():
        for column in columns:
            if column not in names:
                close = difflib.get_close_matches(column, names, n=1)
                advice = f"did you mean '{close[0]}'?" if close else f"it has: {', '.join(names)}"
                raise ValueError(
                    f"{mapping}: {key} names '{column}', which {file} does not have; {advice}"
                )


def _choose_extras(file_mapping: FileMapping, *, names: Sequence[str]) -> list[str]:
    """Choose the columns to take along; those that tell the truth never are."""
    truth = [
        column
        for name in LABEL_NAMES
        if name in file_mapping.columns
        for column in file_mapping.find_sources(name)
    ]
    if file_mapping.keep == "all":
        used = {c for name in file_mapping.columns for c in file_mapping.find_sources(name)}
        chosen = [column for column in names if column not in used]
    else:
        chosen = [column for column in file_mapping.keep if column not in truth]
    extras = [column for column in chosen if column not in file_mapping.drop]
    taken = [column for column in extras if column in (*TRANSACTION_COLUMNS, *LABEL_NAMES)]
    if taken:
        raise ValueError(
            f"column '{taken[0]}' of the file has the name of one of ours: map it or drop it"
        )
    return extras


def _find_text_sources(file_mapping: FileMapping, *, extras: Sequence[str]) -> list[str]:
    """Name the columns to read as text: ids, categories and written times."""
    texts: list[str] = []
    for name, source in file_mapping.columns.items():
        is_written_time = name in TIME_NAMES and not (
            isinstance(source, TimeColumn) and source.unit
        )
        if name in TEXT_NAMES or is_written_time:
            texts += file_mapping.find_sources(name)
    return [column for column in texts if column not in extras]


def _read_column(rows: pd.DataFrame, *, name: str, mapping: FileMapping) -> pd.Series:
    """Make one of our columns from the file's; numbers and flags are left to the contract."""
    sources = mapping.find_sources(name)
    if name in TIME_NAMES:
        source = mapping.columns[name]
        column = source if isinstance(source, TimeColumn) else TimeColumn(column=sources[0])
        return read_times(rows[sources[0]], source=column)
    if name not in TEXT_NAMES:
        return rows[sources[0]]
    texts = [_read_texts(rows[column]) for column in sources]
    if len(texts) == 1:
        return texts[0]
    parts = pd.concat(texts, axis=1)
    joined = pd.Series(map(JOINT.join, parts.fillna("").to_numpy()), dtype=object)
    return joined.where(parts.notna().any(axis=1), None)


def _read_texts(values: pd.Series) -> pd.Series:
    """Read an id or a category; ``13926.0``, as CSV writes a whole number with gaps, is 13926.

    >>> _read_texts(pd.Series(["13926.0", None, "0042"])).tolist()
    ['13926', None, '0042']
    """
    texts = convert_to_text(values)
    if texts.dropna().str.fullmatch(r"-?\d+(\.0+)?").all():
        return texts.str.replace(r"\.0+$", "", regex=True)
    return texts
