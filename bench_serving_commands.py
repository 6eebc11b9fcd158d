"""The commands ``throughline bench load``, ``device``, ``serving`` and ``pipeline``.

Each measures a part of the service, or the whole path, beside its peers; its arguments become plain
values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from command_line import Config, Json, Runs, Set, finish_bench, read_fraud_config

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
    chosen = read_fraud_config(config, settings, {"runs": runs})
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
    what an offline build of exactly the answered transactions gives; beside it plain uvicorn in the
    same run, and the path's share of that. With --json, a picture (SVG) of the freshness over time
    beside it.

    Example: throughline bench pipeline --json runs/bench/pipeline.json

    Example: throughline bench pipeline --rate 5000 --workers 2 --processors 2

    Next: throughline bench --help
    """
    chosen = read_fraud_config(config, settings, {})
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
