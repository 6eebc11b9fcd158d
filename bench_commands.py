"""The commands ``throughline bench <name>``: each measures one thing beside its peers, in one run.

Every result holds ``environment``, ``rows`` (one per measured thing, units in the key names) and
``targets`` (name, value, target, met), so that a person and a script read the same verdict.
``load``, ``device``, ``serving`` and ``pipeline`` are in ``bench_serving_commands.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench_serving_commands import (
    PIPELINE_TREES,
    bench_device,
    bench_load,
    bench_pipeline,
    bench_serving,
)
from command_line import Config, Json, Runs, Seed, Set, finish_bench, read_fraud_config

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure: every figure beside its peers, in one run, as a ratio.",
)


@app.callback()
def bench() -> None:
    """Make every bench a command of its own, however many there are."""


@app.command("history")
def bench_history(
    *,
    config: Config = None,
    runs: Runs = None,
    seed: Seed = None,
    size: Annotated[str, typer.Option(help="Size of the simulated world: demo or full.")] = "full",
    settings: Set = None,
    sample_rows: Annotated[
        int, typer.Option(min=1, help="Rows, made up to whole days, for Feast's own store.")
    ] = 20_000,
    json: Json = None,
) -> None:
    """Join training features point in time, beside Feast's own file store.

    In: the world of a runs folder (runs/bench-SIZE if not given), simulated when the folder holds
    none. Out: seconds, rows per second and peak memory of the join of every transaction with every
    fraud feature, and the same on the history's last days beside the file store, which the whole
    history is too much for; each in a process of its own. The answers are compared.

    Example: throughline bench history --size demo --json history.json

    Next: throughline bench --help
    """
    options = {"runs": runs or Path(f"runs/bench-{size}"), "seed": seed, "data.size": size}
    chosen = read_fraud_config(config, settings, options)
    from features.bench_history import run_bench_history

    finish_bench(run_bench_history(chosen, sample_rows=sample_rows), json=json)


@app.command("windows")
def bench_windows(
    *,
    rows: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Rows in memory; repeat.  [default: 1000000 and 10000000]"),
    ] = None,
    peer_rows: Annotated[
        int, typer.Option(min=0, help="Measure the peers up to this many rows.")
    ] = 1_000_000,
    out_of_core_rows: Annotated[
        int, typer.Option(min=0, help="Rows out of core, after a tenth of them; 0 skips both.")
    ] = 100_000_000,
    memory_gb: Annotated[
        float, typer.Option(min=1, help="Memory the out-of-core run may take, 10^9 bytes.")
    ] = 2.0,
    folder: Annotated[
        Path, typer.Option(help="Where the data go while it runs; 200 bytes a row must fit.")
    ] = Path("runs/bench"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the data and the windows.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the transactions.")] = 11,
    json: Json = None,
) -> None:
    """Compute windows from history, beside DuckDB, polars and pandas; then more than memory holds.

    In: nothing; card transactions are invented, in time order. Out: for each engine and size the
    seconds for 12 features per row (count, mean and maximum over 1 hour, 24 hours, 7 and 30 days,
    strictly past), sorting and grouping included; rows per second, peak memory, the ratio to
    DuckDB, and how far the answers differ. Out of core: from parquet files to parquet files.
    With --json, a picture (SVG) beside it.

    Example: throughline bench windows --json runs/bench/windows.json

    Example: throughline bench windows --rows 100000 --out-of-core-rows 0

    Next: throughline bench --help
    """
    from features.bench_windows import run_bench_windows

    result = run_bench_windows(
        sizes=rows or (1_000_000, 10_000_000),
        peer_rows=peer_rows,
        out_of_core_rows=out_of_core_rows,
        memory_gb=memory_gb,
        folder=folder,
        seed=seed,
        keep=keep,
        picture=None if json is None else json.with_suffix(".svg"),
    )
    finish_bench(result, json=json)


@app.command("stream")
def bench_stream(
    *,
    customers: Annotated[int, typer.Option(min=10, help="Of the simulated world.")] = 6500,
    merchants: Annotated[int, typer.Option(min=10, help="Of the simulated world.")] = 2500,
    rows: Annotated[int, typer.Option(min=100, help="Transactions at full speed.")] = 50_000,
    rate: Annotated[
        int, typer.Option(min=1, help="Transactions a second of the live run.")
    ] = 10_000,
    seconds: Annotated[int, typer.Option(min=1, help="Length of the live run.")] = 10,
    config: Config = None,
    settings: Set = None,
    json: Json = None,
) -> None:
    """Measure the stream processor: transactions a second per core, freshness of the windows.

    Beside ours, the same processor with its states read and written through Feast's SDK. It starts
    a Redis of its own on loopback, and stops it. Every state is checked against an offline build.

    Example: throughline bench stream --rate 5000 --json runs/bench/stream.json
    """
    chosen = read_fraud_config(config, settings, {})
    from features.bench_stream import run_bench_stream

    result = run_bench_stream(
        customers=customers,
        merchants=merchants,
        rows=rows,
        rate=rate,
        seconds=seconds,
        settings=chosen.stream,
    )
    finish_bench(result, json=json)


app.command("load")(bench_load)
app.command("device")(bench_device)
app.command("serving")(bench_serving)
app.command("pipeline")(bench_pipeline)


@app.command("alarms")
def bench_alarms(
    *,
    config: Config = None,
    settings: Set = None,
    worlds: Annotated[int, typer.Option(min=1, help="Unchanged worlds, a seed each.")] = 3,
    weeks: Annotated[int, typer.Option(min=1, help="Weekly reports per world.")] = 12,
    json: Json = None,
) -> None:
    """Count false alarms: monitoring's verdicts on worlds in which nothing changes.

    In: nothing; each world is simulated in a temporary folder and a champion trained in it. Out: of
    the weekly reports, the share in which a trigger or the data-quality gate went off, with its
    interval, beside the rate that the configuration states.

    Example: throughline bench alarms --worlds 1 --weeks 4

    Next: throughline fraud monitor
    """
    chosen = read_fraud_config(config, settings, {})
    from monitoring.false_alarms import measure_false_alarms
    from training.fraud import run_train

    result = measure_false_alarms(
        chosen,
        train=lambda world, now: run_train(world, now=now, only="lightgbm", params=PIPELINE_TREES),
        seeds=range(chosen.seed, chosen.seed + worlds),
        num_weeks=weeks,
    )
    finish_bench(result, json=json)
