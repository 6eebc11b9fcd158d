"""The commands ``throughline bench <name>``: each measures one thing beside its peers, in one run.

Every result holds ``environment``, ``rows`` (one per measured thing, units in the key names) and
``targets`` (name, value, target, met), so that a person and a script read the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from command_line import Config, Json, Runs, Seed, Set, collect_changes

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure: every figure beside its peers, in one run, as a ratio.",
)

PIPELINE_TREES = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "lambda_l2": 1.0,
    "num_trees": 200,
}
"""A champion like those a search finds; the bench does not search."""


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
    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    options = {"runs": runs or Path(f"runs/bench-{size}"), "seed": seed, "data.size": size}
    chosen = load_fraud_config(
        config or DEFAULT_FRAUD_CONFIG, changes=collect_changes(settings, options)
    )
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
    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    changes = collect_changes(settings, {})
    chosen = load_fraud_config(config or DEFAULT_FRAUD_CONFIG, changes=changes)
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


@app.command("load")
def bench_load(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each run.")] = 5.0,
    connections: Annotated[int, typer.Option(min=1, help="Of each generator.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each, in turn.")] = 3,
    json: Json = None,
) -> None:
    """Measure our load generator beside wrk: the same bytes to the same constant target.

    In: nothing; a server that always answers the same is started, and stopped. Out: requests per
    second, latency and the generator's own processor time a request, medians over the runs. Where
    wrk is not installed, ours alone.

    Example: throughline bench load --json runs/bench/load.json

    Next: make docs
    """
    from serving.bench_load import run_bench_load

    result = run_bench_load(seconds=seconds, connections=connections, rounds=rounds)
    finish_bench(result, json=json)


@app.command("device")
def bench_device(
    *,
    runs: Runs = None,
    rows: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Rows of a batch; repeat.  [default: 1, 4, 16, ... 65536]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of invented rows, and of the fits.")] = 7,
    json: Json = None,
) -> None:
    """Score batches of every size on the CPU and on the GPU, and find where the GPU wins.

    In: the champion of a runs folder and its reference rows, or nothing: rows are invented, and
    trees and a network fitted on them. Out: for LightGBM, ONNX Runtime, torch on the CPU
    and torch on CUDA, microseconds per batch from the host's memory and back; the smallest batch
    that the GPU scores faster than any of them. With --json, a picture (SVG) beside it.

    Example: throughline bench device --json runs/bench/device.json

    Example: throughline bench device --runs runs/demo --rows 1 --rows 1000

    Next: throughline bench --help
    """
    from serving.bench_device import SIZES, run_bench_device

    result = run_bench_device(
        runs=runs,
        sizes=rows or SIZES,
        seed=seed,
        picture=None if json is None else json.with_suffix(".svg"),
    )
    finish_bench(result, json=json)


@app.command("serving")
def bench_serving(
    *,
    config: Config = None,
    runs: Annotated[Path, typer.Option(help="Folder of the bench's own, reused.")] = Path(
        "runs/bench-serving"
    ),
    settings: Set = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each measurement.")] = 8.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each service is measured.")] = 2,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Measure the steps from the textbook to ours instead.")
    ] = False,
    json: Json = None,
) -> None:
    """Measure the service beside others of the same model, store and transactions.

    In: nothing; a world is simulated, its features put into a Redis of the bench's own, a champion
    trained, all of it kept for the next time. Out: for the textbook's service, MLflow's, our scorer
    in BentoML's API and in FastAPI, bare uvicorn, and ours: requests a second at 64 connections,
    latency, what a core is worth, errors, how far scores differ; ours also at 10,000 a second, open
    loop. The best of the rounds counts. With --json, pictures (SVG) beside it.

    Example: throughline bench serving --json runs/bench/serving.json

    Example: throughline bench serving --ablate --json runs/bench/serving-steps.json

    Next: throughline bench --help
    """
    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    changes = collect_changes(settings, {"runs": runs})
    chosen = load_fraud_config(config or DEFAULT_FRAUD_CONFIG, changes=changes)
    from serving.bench_serving import run_bench_serving
    from training.fraud import run_train

    result = run_bench_serving(
        chosen,
        train=lambda world: run_train(world, only="lightgbm"),
        seconds=seconds,
        rounds=rounds,
        ablate=ablate,
        picture=None if json is None else json.with_suffix(".svg"),
    )
    finish_bench(result, json=json)


@app.command("pipeline")
def bench_pipeline(
    *,
    config: Config = None,
    customers: Annotated[int, typer.Option(min=10, help="Of the simulated world.")] = 6500,
    merchants: Annotated[int, typer.Option(min=10, help="Of the simulated world.")] = 2500,
    rate: Annotated[
        float, typer.Option(min=1, help="Transactions a second; a little above the target.")
    ] = 10_500,
    seconds: Annotated[float, typer.Option(min=1, help="Length of the load.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Of the service.")] = 1,
    processors: Annotated[int, typer.Option(min=1, help="Of the stream.")] = 1,
    settings: Set = None,
    json: Json = None,
) -> None:
    """Measure the whole path: scored, published, processed, known to the next request.

    In: nothing; a world that ends today is simulated, its features put into a Redis of the bench's
    own, a champion trained; all of it is removed again. Out: answers a second and their latency,
    milliseconds from a decision until the customer's windows hold it, and whether every state is
    what an offline build of exactly the answered transactions gives. With --json, a picture (SVG)
    of the freshness over time beside it.

    Example: throughline bench pipeline --json runs/bench/pipeline.json

    Example: throughline bench pipeline --rate 5000 --workers 2 --processors 2

    Next: throughline bench --help
    """
    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    changes = collect_changes(settings, {})
    chosen = load_fraud_config(config or DEFAULT_FRAUD_CONFIG, changes=changes)
    from serving.bench_pipeline import run_bench_pipeline
    from training.fraud import run_train

    result = run_bench_pipeline(
        chosen,
        customers=customers,
        merchants=merchants,
        rate=rate,
        seconds=seconds,
        workers=workers,
        processors=processors,
        train=lambda world: run_train(world, only="lightgbm", params=PIPELINE_TREES),
        picture=None if json is None else json.with_suffix(".svg"),
    )
    finish_bench(result, json=json)


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
    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    changes = collect_changes(settings, {})
    chosen = load_fraud_config(config or DEFAULT_FRAUD_CONFIG, changes=changes)
    from monitoring.false_alarms import measure_false_alarms
    from training.fraud import run_train

    result = measure_false_alarms(
        chosen,
        train=lambda world, now: run_train(world, now=now, only="lightgbm", params=PIPELINE_TREES),
        seeds=range(chosen.seed, chosen.seed + worlds),
        num_weeks=weeks,
    )
    finish_bench(result, json=json)


def finish_bench(result: Mapping[str, Any], *, json: Path | None) -> None:
    """Write a benchmark's result as JSON where asked, and print its rows and targets as tables."""
    from configs.files import write_json
    from configs.terminal import print_result

    tables = {
        "rows": {str(row["name"]): _drop_name(row) for row in result["rows"]},
        "targets": {
            str(target["name"]): {
                "value": target["value"],
                "target": ("at least " if "at_least" in target else "at most ")
                + f"{target['target']:g}",
                "met": target["met"],
            }
            for target in result["targets"]
        },
    }
    wrote = list(result["wrote"])
    if json is not None:
        wrote.append(str(json))
        write_json(json, {**result, "wrote": wrote})
    shown = {key: value for key, value in result.items() if key not in tables}
    print_result({**shown, **tables, "wrote": wrote})


def _drop_name(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "name"}
