"""The commands ``throughline fraud serve`` and ``fraud load``: the service and what it can bear."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from command_line import Config, Json, Runs, Seed, Set, finish, read_fraud_config

if TYPE_CHECKING:
    from configs.schema import FraudConfig

Arrivals = Literal["poisson", "constant"]
Device = Literal["cpu", "cuda"]


def fraud_serve(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
    device: Annotated[
        Device | None, typer.Option(help="Where a PyTorch champion is scored.  [default: cpu]")
    ] = None,
    json: Json = None,
) -> None:
    """Serve the champion over HTTP with BentoML, until Ctrl-C.

    In: the champion and the online store. Out: POST /predict and /predict_batch (score, decision,
    reasons), the API's page at /, /readyz, and a prediction log for `fraud monitor`. A newly
    promoted champion is picked up without a restart.

    Example: throughline fraud serve --port 3001

    Next, in another terminal: throughline fraud load
    """
    changes = {
        "runs": runs,
        "serving.host": host,
        "serving.port": port,
        "serving.device": device,
    }
    chosen = read_fraud_config(config, settings, changes)
    from serving.server import run_serve

    finish(run_serve(chosen), json=json, config=config, runs=runs)


def fraud_load(
    *,
    config: Config = None,
    runs: Runs = None,
    seed: Seed = None,
    settings: Set = None,
    url: Annotated[str | None, typer.Option(help="A running service, on this machine.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Let --url be on this machine of yours too; may be repeated. A load test against "
            "a machine that is not yours is an attack.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, help="Requests a second, open loop.  [default: closed loop]"),
    ] = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Closed loop, whatever load.rate says.")
    ] = False,
    arrivals: Annotated[Arrivals | None, typer.Option(help="Of the open loop.")] = None,
    connections: Annotated[int | None, typer.Option(min=1, help="Kept alive, in all.")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="That generate.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Without the warm-up.")] = None,
    ladder: Annotated[
        bool, typer.Option("--ladder", help="Raise the rate until the service cannot follow.")
    ] = False,
    soak: Annotated[
        float | None, typer.Option(min=1, metavar="SECONDS", help="Keep the rate; is there growth?")
    ] = None,
    expect: Annotated[
        bool, typer.Option("--expect", help="Hold answers against /predict_batch, for a sample.")
    ] = False,
    path: Annotated[str | None, typer.Option(help="What is asked.  [default: load.path]")] = None,
    body: Annotated[
        Path | None,
        typer.Option(help="JSON lines, each a body, for a service that is not ours; needs --url."),
    ] = None,
    replay_days: Annotated[
        int | None,
        typer.Option(
            min=1, help="Instead: score the days after the online store's instant; needs --url."
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Measure what the service can bear; or replay history through it.

    In: random customers of the runs folder; every answer is checked. Out: requests, errors,
    requests per second and latency percentiles, from when each request was due, as JSON, CSV,
    HdrHistogram text and a page. Exit code 1 if the generator was the bottleneck: not valid then.
    A load's invented transactions never reach `fraud monitor`; those of a replay, which happened,
    do.

    Example: throughline fraud load --rate 1000 --expect

    Example: throughline fraud load --ladder --connections 128

    Example: throughline fraud load --url http://127.0.0.1:3000 --replay-days 3

    Example: throughline fraud load --url http://staging:3000 --allow-host staging --rate 100

    Next, after a replay: throughline fraud monitor
    """
    changes = {
        "runs": runs,
        "seed": seed,
        "load.rate": rate,
        "load.arrivals": arrivals,
        "load.num_connections": connections,
        "load.processes": processes,
        "load.seconds": seconds,
    }
    if closed:
        settings = [*(settings or ()), "load.rate=null"]
    chosen = read_fraud_config(config, settings, changes)
    if url is not None:
        from serving.load_address import check_listens, check_may_be_loaded

        if replay_days is None:
            check_may_be_loaded(url, allow_hosts=allow_host or ())
        check_listens(url)
    if replay_days is not None:
        finish(_replay(chosen, url=url, days=replay_days), json=json, config=config, runs=runs)
        return
    from serving.loadtest import run_load

    result = run_load(
        chosen,
        url=url,
        allow_hosts=allow_host or (),
        path=path,
        body=body,
        expect=expect,
        ladder=ladder,
        soak_seconds=soak,
    )
    finish(result, json=json, config=config, runs=runs)
    if result["interrupted"]:
        raise typer.Exit(130)
    if not result["valid"]:
        raise typer.Exit(1)


def _replay(config: FraudConfig, *, url: str | None, days: int) -> dict[str, Any]:
    if url is None:
        raise ValueError("--replay-days needs --url: the service that `fraud serve` started")
    from serving.replay import run_replay

    return run_replay(config, url=url, days=days)
