"""The commands beside the daily stages: the online store kept, restored and checked; a benchmark.

``throughline fraud stream``, ``rebuild``, ``parity`` and ``handbook``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from command_line import Config, Json, Runs, Set, finish, read_fraud_config, read_time


def fraud_stream(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    publish_days: Annotated[
        int | None,
        typer.Option(min=1, help="First publish so many days that follow the store's instant."),
    ] = None,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when everything published is processed.")
    ] = False,
    json: Json = None,
) -> None:
    """Keep the windows up to date with a stream of transactions, until Ctrl-C.

    In: the log that transactions are published to (files; Redis Streams in the stack profile).
    Out: their entities' states in the online store, an archive of what was accepted, a table of
    dead letters. Start several: they share the partitions. Kill one: nothing is lost or doubled.

    Example: throughline fraud stream --publish-days 3 --until-empty

    Example: throughline fraud stream --set profile=stack

    Next: throughline fraud serve
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    from features.fraud_stream import run_stream

    result = run_stream(chosen, publish_days=publish_days, until_empty=until_empty)
    finish(result, json=json, config=config, runs=runs)


def fraud_rebuild(
    *, config: Config = None, runs: Runs = None, settings: Set = None, json: Json = None
) -> None:
    """Restore the online store, which is a cache, from history and the stream's archive.

    In: the history the features were built from, what the stream has accepted since. Out: every
    entity's state, written anew. Processors wait meanwhile and go on by themselves. A flushed Redis
    has lost its log too: publish again what had not been processed; what had been changes nothing.

    Example: throughline fraud rebuild --runs runs/mine

    Next: throughline fraud parity
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    from features.fraud_rebuild import run_rebuild

    finish(run_rebuild(chosen), json=json, config=config, runs=runs)


def fraud_parity(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    sample: Annotated[int, typer.Option(min=1, help="How many transactions to replay.")] = 2000,
    since: Annotated[
        str | None, typer.Option(help="Transactions from this UTC time on; ISO 8601.")
    ] = None,
    max_lag: Annotated[
        float, typer.Option(min=0.0, help="Seconds the stream may have been behind.")
    ] = 60.0,
    max_mismatch_share: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of predictions in which a feature may differ unexplained."
        ),
    ] = 0.0,
    json: Json = None,
) -> None:
    """Hold what was served against history, feature by feature.

    In: a sample of the prediction log, chosen by a hash of the transaction; history, labels and
    what the stream accepted. Out: per feature how often and how far served and replayed values
    differ, and how much of it stream lag, late events, labels not yet published, long histories
    and degraded answers explain. Exit code 1 if more is unexplained than --max-mismatch-share.

    Example: throughline fraud parity --sample 500 --since 2026-05-01T00:00:00Z

    Next: throughline fraud monitor
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    start = read_time("--since", since)
    from monitoring.fraud_parity import run_parity

    result = run_parity(
        chosen,
        sample=sample,
        since=start,
        max_lag_seconds=max_lag,
        max_mismatch_share=max_mismatch_share,
    )
    finish(result, json=json, config=config, runs=runs)
    if not result["agrees"]:
        raise typer.Exit(1)


def fraud_handbook(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    json: Json = None,
) -> None:
    """Run a published benchmark again, and our own models in it.

    In: nothing; the Fraud Detection Handbook's simulator makes its 1,754,155 transactions. Out:
    its tables, measured again beside the published figures (single split and prequential); what
    classic leaks would add; our pipeline in the same protocol. JSON, CSV and pictures go to
    handbook/ in the runs folder.

    Example: throughline fraud handbook --runs runs/fraud

    Next: make docs
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    from training.handbook import run_handbook

    finish(run_handbook(chosen), json=json, config=config, runs=runs)
