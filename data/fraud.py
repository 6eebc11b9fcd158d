"""The data stage of the fraud problem: a simulated world or a user's file becomes runs/*.parquet.

Invariant: the four files of a run change together or not at all, and ``data.json`` says what is in
the other three; a run that was interrupted leaves the run before it as it was.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from configs.files import hash_file, read_json, write_json, write_whole
from configs.progress import show_progress
from configs.schema import FraudConfig
from data.fraud_columns import TRANSACTION_COLUMNS
from data.fraud_contract import (
    CheckedTransactions,
    check_transactions,
    find_extra_columns,
)
from data.fraud_world import simulate_world
from data.handbook import NUM_CUSTOMERS, convert_handbook, simulate_handbook
from data.mapping import load_mapped_file

__all__ = [
    "CheckedTransactions",
    "check_transactions",
    "load_labels",
    "load_summary",
    "load_transactions",
    "run_data",
    "save_checked",
]

Source = tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]


def transactions_path(runs: Path) -> Path:
    """Where a run keeps its transactions."""
    return runs / "transactions.parquet"


def labels_path(runs: Path) -> Path:
    """Where a run keeps its labels."""
    return runs / "labels.parquet"


def quarantine_path(runs: Path) -> Path:
    """Where a run keeps the rows its contract refused."""
    return runs / "quarantine.parquet"


def summary_path(runs: Path) -> Path:
    """Where a run keeps what is known about its data."""
    return runs / "data.json"


def run_data(
    config: FraudConfig,
    *,
    world: Literal["simulated", "handbook"] = "simulated",
    transactions: Path | None = None,
    mapping: Path | None = None,
) -> dict[str, Any]:
    """Make, check and write a run's transactions and labels.

    Args:
        config: The world's size, seed and schedule; the label delay; the quarantine's limit.
        world: What to simulate when no file is given.
        transactions: A user's own file, CSV or Parquet, instead of a simulated world.
        mapping: The YAML file that says what its columns are.

    Returns:
        The summary that ``data.json`` holds, with ``wrote`` (paths) and ``next`` (a command).

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the arguments, the files or the rows are not what they must be.
    """
    if (transactions is None) != (mapping is None):
        missing = "--mapping" if mapping is None else "--transactions"
        raise ValueError(f"a file of your own needs --transactions and --mapping; give {missing}")
    if transactions is not None and mapping is not None:
        if world != "simulated":
            raise ValueError(f"give either --world {world} or --transactions, not both")
        rows, labels, origin = _read_file(config, path=transactions, mapping=mapping)
    elif world == "handbook":
        rows, labels, origin = _simulate_handbook(config)
    elif world == "simulated":
        rows, labels, origin = _simulate_world(config)
    else:
        raise ValueError(f"world is '{world}'; it must be simulated or handbook")
    with show_progress(f"Checking {len(rows):,} transactions"):
        checked = check_transactions(
            rows, labels, max_quarantine_share=config.data.max_quarantine_share
        )
    summary = save_checked(checked, runs=config.runs, origin=origin)
    wrote = (
        transactions_path(config.runs),
        labels_path(config.runs),
        quarantine_path(config.runs),
        summary_path(config.runs),
    )
    return summary | {"wrote": [str(path) for path in wrote], "next": "throughline fraud features"}


def save_checked(
    checked: CheckedTransactions, *, runs: Path, origin: dict[str, Any]
) -> dict[str, Any]:
    """Write checked data and its summary, all four files or none.

    Args:
        checked: What the contract let in and what it did not.
        runs: The run's folder.
        origin: Where the data came from; the summary opens with it.

    Returns:
        The summary.
    """
    frames = {
        transactions_path(runs): checked.transactions,
        labels_path(runs): checked.labels,
        quarantine_path(runs): checked.quarantine,
    }
    # Entered first, so moved last: data.json never speaks of files that are not there yet.
    with ExitStack() as stack, show_progress("Writing", total=len(frames)) as advance:
        summary_part = stack.enter_context(write_whole(summary_path(runs)))
        hashes = {}
        for path, frame in frames.items():
            part = stack.enter_context(write_whole(path))
            frame.to_parquet(part, index=False, coerce_timestamps="us", compression="zstd")
            hashes[path.name] = hash_file(part)
            advance(1)
        summary = origin | _summarise(checked) | {"sha256": hashes}
        write_json(summary_part, summary)
    return summary


def load_transactions(runs: Path) -> pd.DataFrame:
    """Load a run's transactions, sorted by ``event_time``, then ``transaction_id``.

    Raises:
        FileNotFoundError: If the data stage has not run.
        ValueError: If the file is broken.
    """
    return _load_frame(transactions_path(runs))


def load_labels(runs: Path) -> pd.DataFrame:
    """Load a run's labels, in the order of its transactions; errors as ``load_transactions``."""
    return _load_frame(labels_path(runs))


def load_summary(runs: Path) -> dict[str, Any]:
    """Load what is known about a run's data.

    Raises:
        FileNotFoundError: If the data stage has not run.
        ValueError: If the file is broken.
    """
    path = summary_path(runs)
    if not path.is_file():
        raise FileNotFoundError(f"no data at {path}; run 'throughline fraud data' first")
    return read_json(path)


def _load_frame(path: Path) -> pd.DataFrame:
    """Read one of the run's Parquet files."""
    if not path.is_file():
        raise FileNotFoundError(f"no data at {path}; run 'throughline fraud data' first")
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is broken ({reason}); run 'throughline fraud data' again"
        ) from error


def _simulate_world(config: FraudConfig) -> Source:
    """Simulate the configured world."""
    with show_progress("Simulating days", total=config.world_size.num_days) as advance:
        transactions, labels = simulate_world(
            config.world_size,
            seed=config.seed,
            start_time=config.data.start_time,
            label_delay_days=config.data.label_delay_days,
            never_reported_share=config.data.never_reported_share,
            changes=config.data.changes,
            advance=advance,
        )
    return transactions, labels, {"world": "simulated", "size": config.data.size}


def _simulate_handbook(config: FraudConfig) -> Source:
    """Simulate the Fraud Detection Handbook's world and count its frauds as its authors do."""
    with show_progress("Simulating the handbook's customers", total=NUM_CUSTOMERS) as advance:
        handbook = simulate_handbook(advance=advance)
    delay = config.data.label_delay_days
    transactions, labels = convert_handbook(handbook.transactions, label_delay_days=delay)
    counts = {
        "transactions": len(handbook.transactions),
        "frauds": int(handbook.transactions["is_fraud"].sum()),
        "added": handbook.num_added,
        "final": handbook.num_final,
    }
    return transactions, labels, {"world": "handbook", "handbook": counts}


def _read_file(config: FraudConfig, *, path: Path, mapping: Path) -> Source:
    """Read a user's own file."""
    with show_progress(f"Reading {path.name}"):
        transactions, labels = load_mapped_file(
            path, mapping=mapping, label_delay_days=config.data.label_delay_days
        )
    return transactions, labels, {"world": "file", "file": str(path), "mapping": str(mapping)}


def _summarise(checked: CheckedTransactions) -> dict[str, Any]:
    """Count what a run's data holds."""
    transactions, labels, quarantine = checked.transactions, checked.labels, checked.quarantine
    reasons = Counter(reason for reasons in quarantine["reason"] for reason in reasons.split("; "))
    times = transactions["event_time"]
    patterns = labels.get("fraud_pattern", pd.Series(dtype=object))
    merchants = transactions.get("merchant_id")
    return {
        "transactions": len(transactions),
        "labels": len(labels),
        "unlabelled": len(transactions) - len(labels),
        "frauds": int(labels["is_fraud"].sum()),
        "fraud_rate": float(labels["is_fraud"].mean()) if len(labels) else None,
        "customers": int(transactions["customer_id"].nunique()),
        "merchants": None if merchants is None else int(merchants.nunique()),
        "days": int((times.max() - times.min()).days) + 1 if len(times) else 0,
        "start_time": times.min().isoformat() if len(times) else None,
        "end_time": times.max().isoformat() if len(times) else None,
        "patterns": {
            name: int(count) for name, count in patterns[patterns != ""].value_counts().items()
        },
        "quarantined": {
            "transactions": int((quarantine["source"] == "transactions").sum()),
            "labels": int((quarantine["source"] == "labels").sum()),
            "reasons": dict(reasons),
        },
        "columns": list(transactions.columns),
        "extra_columns": find_extra_columns(transactions),
        "missing_columns": [name for name in TRANSACTION_COLUMNS if name not in transactions],
    }
