"""The commands ``throughline fraud <stage>``: arguments become one stage's plain values.

Each reads the configuration first, so that a mistake in it is answered before anything slow is
imported, then runs one stage. ``serve`` and ``load`` are in ``serve_commands.py``; ``stream``,
``rebuild``, ``parity`` and ``handbook`` in ``upkeep_commands.py``; ``tick`` in
``loop_commands.py``.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Literal

import typer

from command_line import Config, Json, Runs, Seed, Set, finish, read_fraud_config, read_time
from loop_commands import fraud_tick
from serve_commands import fraud_load, fraud_serve
from status_commands import fraud_status
from timelapse_commands import fraud_timelapse
from upkeep_commands import fraud_handbook, fraud_parity, fraud_rebuild, fraud_stream

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Is this card transaction fraudulent, now? The stages, in order: data, features, train, "
    "serve, load, monitor; demo runs them all. tick closes the loop: it decides, retrains, rolls "
    "out and takes back. stream keeps the online store up to date, rebuild "
    "restores it, parity holds what was served against history, rollback brings the last champion "
    "back; handbook is a published benchmark.",
)

MAPPING_EXAMPLE = """\b
A mapping file names your columns; the rest pass through as features (data/mapping.py has more):
  columns:
    transaction_id: TransactionID
    event_time: paid_at              # ISO, or {column: t, unit: s, origin: 2017-12-01T00:00:00Z}
    customer_id: [card1, addr1]      # several columns may make one id
    amount: TransactionAmt
    is_fraud: isFraud
  keep: all
"""

World = Literal["simulated", "handbook"]
Size = Annotated[str | None, typer.Option(help="Size of the simulated world: demo or full.")]
Transactions = Annotated[
    Path | None, typer.Option(help="Your own transactions, CSV or Parquet; needs --mapping.")
]
Mapping_ = Annotated[
    Path | None, typer.Option("--mapping", help="YAML file: which of your columns is which.")
]


@app.command("data", epilog=MAPPING_EXAMPLE)
def fraud_data(
    *,
    config: Config = None,
    runs: Runs = None,
    seed: Seed = None,
    size: Size = None,
    settings: Set = None,
    world: Annotated[World, typer.Option(help="Whose simulator.")] = "simulated",
    transactions: Transactions = None,
    mapping: Mapping_ = None,
    json: Json = None,
) -> None:
    """Make or read transactions, and check them at the door.

    In: nothing (a simulated world), or your own file with a column mapping. Out: transactions,
    labels and the quarantined rows with their reasons, as Parquet in the runs folder.

    Example: throughline fraud data --size full --seed 11

    Example: throughline fraud data --transactions cards.csv --mapping cards.yaml

    Next: throughline fraud features
    """
    chosen = read_fraud_config(config, settings, {"runs": runs, "seed": seed, "data.size": size})
    from data.fraud import run_data

    result = run_data(chosen, world=world, transactions=transactions, mapping=mapping)
    finish(result, json=json, config=config, runs=runs)


@app.command("features")
def fraud_features(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="UTC time the online store is for.  [default: the history's end]"),
    ] = None,
    json: Json = None,
) -> None:
    """Build the features and the online store, with Feast.

    In: the transactions and labels of `fraud data`. Out: a Feast registry, the history its
    training sets are joined from, and an online store that answers as of the moment it is asked.

    Example: throughline fraud features --runs runs/mine

    Next: throughline fraud train
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    instant = read_time("--as-of", as_of)
    from features.store_build import run_features

    finish(run_features(chosen, as_of=instant), json=json, config=config, runs=runs)


app.command("stream")(fraud_stream)
app.command("rebuild")(fraud_rebuild)
app.command("parity")(fraud_parity)


@app.command("train")
def fraud_train(
    *,
    config: Config = None,
    runs: Runs = None,
    seed: Seed = None,
    settings: Set = None,
    now: Annotated[str | None, typer.Option(help="Train as of this UTC time; ISO 8601.")] = None,
    only: Annotated[str | None, typer.Option(help="Train this kind only, as lightgbm.")] = None,
    json: Json = None,
) -> None:
    """Train four kinds of model, compare them, register the best.

    In: features as of each transaction, labels that have matured, split in time order. Out:
    logistic regression, LightGBM, a PyTorch network and a blend of the last two, calibrated, with
    intervals and baselines beside them, in MLflow; the best becomes champion if there is none,
    else challenger. A leak stops the run.

    Example: throughline fraud train --set training.num_trials=30

    Next: throughline fraud serve
    """
    chosen = read_fraud_config(config, settings, {"runs": runs, "seed": seed})
    as_of = read_time("--now", now)
    from monitoring.outcome_shares import read_outcome_shares
    from training.fraud import run_train

    shares = read_outcome_shares(chosen.runs)
    result = run_train(chosen, now=as_of, only=only, outcome_shares=shares)
    finish(result, json=json, config=config, runs=runs)


app.command("serve")(fraud_serve)
app.command("load")(fraud_load)


@app.command("monitor")
def fraud_monitor(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    now: Annotated[str | None, typer.Option(help="Look as of this UTC time; ISO 8601.")] = None,
    since: Annotated[str | None, typer.Option(help="Look at predictions from then on.")] = None,
    retrain: Annotated[
        bool, typer.Option(help="Act on a decision to retrain, or only report it.")
    ] = True,
    json: Json = None,
) -> None:
    """Look for drift, and decide whether to retrain.

    In: the prediction log, the training reference, labels that have matured: what was served
    against what was trained on. Out: Evidently reports (HTML and JSON) and a decision with its
    reasons; data quality is judged first. A decision to retrain trains a challenger, compares it
    on later matured days, and promotes it or keeps the champion, at once: `fraud tick` is the loop
    that remembers, waits, rolls out in steps and takes back.

    Example: throughline fraud monitor --now 2026-05-01T00:00:00Z

    Next: what the decision says
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    as_of, start = read_time("--now", now), read_time("--since", since)
    from monitoring.fraud import run_monitor
    from training.fraud import run_train

    result = run_monitor(chosen, now=as_of, since=start, train=run_train if retrain else None)
    finish(result, json=json, config=config, runs=runs)


app.command("tick")(fraud_tick)
app.command("status")(fraud_status)


@app.command("rollback")
def fraud_rollback(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    to: Annotated[
        int | None,
        typer.Option(min=1, help="Make this version the champion.  [default: undo the last step]"),
    ] = None,
    json: Json = None,
) -> None:
    """End the rollout of a challenger, or make the champion before the champion again.

    In: the registry, which remembers the champion that the last promotion replaced. Out: the
    shadow or canary ended, if there is one; else the alias moved back, once that version's files
    and golden rows are found right. Either is a line in serving/admin.jsonl. A running service
    follows within two seconds; asked twice, it moves once and refuses the second time.

    Example: throughline fraud rollback --runs runs/mine

    Next: throughline fraud status
    """
    chosen = read_fraud_config(config, settings, {"runs": runs})
    from serving.champion_changes import run_rollback

    result = run_rollback(chosen, to=None if to is None else str(to))
    from monitoring.loop_rollback import explain_rollback, record_rollback

    result["unrecorded"] = record_rollback(chosen, result, who=getpass.getuser())
    finish(result, json=json, config=config, runs=runs, facts=explain_rollback(result))


app.command("timelapse")(fraud_timelapse)
app.command("handbook")(fraud_handbook)


@app.command("demo", epilog=MAPPING_EXAMPLE)
def fraud_demo(
    *,
    config: Config = None,
    runs: Annotated[Path, typer.Option(help="Folder for the demo's files.")] = Path("runs/demo"),
    seed: Seed = None,
    size: Size = None,
    settings: Set = None,
    transactions: Transactions = None,
    mapping: Mapping_ = None,
    json: Json = None,
) -> None:
    """Run the whole story, and write it up as one page.

    Data, features, four models, service, load, a changed world, drift, retraining, promotion.

    In: nothing, or your own transactions with a mapping. Out: a table on the terminal,
    summary.json and report.html (one page with every picture) in the runs folder, from which an
    earlier demo is removed once the data have been read.

    Example: throughline fraud demo --seed 11

    Example: throughline fraud demo --transactions cards.csv --mapping cards.yaml --runs runs/mine

    Next: open runs/demo/report.html
    """
    chosen = read_fraud_config(config, settings, {"runs": runs, "seed": seed, "data.size": size})
    from fraud_demo import list_facts, run_demo

    result = run_demo(chosen, transactions=transactions, mapping=mapping)
    finish(result, json=json, facts=list_facts(result))
