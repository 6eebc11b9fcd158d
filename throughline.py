"""The command line: ``throughline <problem> <stage>``; arguments become one stage's plain values.

Every command reads one configuration, runs one stage, prints its result, and ends with what was
written and what to run next. A person's mistake is one line on standard error and exit code 2;
Ctrl-C is exit code 130, and no file is left half-written. Stages are imported only when run, so
that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

if TYPE_CHECKING:
    import pandas as pd

    from configs.schema import FraudConfig

# What the libraries below would otherwise do behind the user's back; a value already set wins.
ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # unpickling a model runs its author's code
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",  # Evidently
    "GIT_PYTHON_REFRESH": "quiet",
    "MPLBACKEND": "Agg",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help wraps well and answers in a third of the time
    pretty_exceptions_enable=False,
    help="Throughline: an ML system from raw events to served predictions and back to retraining.",
)
fraud = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Is this card transaction fraudulent, now? The stages, in order: data, features, train, "
    "serve, load, monitor; demo runs them all.",
)
app.add_typer(fraud, name="fraud")

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

Config = Annotated[
    Path | None,
    typer.Option(help="YAML file with every setting.  [default: configs/fraud.yaml]"),
]
Json = Annotated[Path | None, typer.Option(help="Write the whole result there, as JSON.")]
Runs = Annotated[Path | None, typer.Option(help="Folder all files go to, and come from.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace one setting, as training.num_trials=4; repeat."
    ),
]
World = Literal["simulated", "handbook"]
Size = Annotated[str | None, typer.Option(help="Size of the simulated world: demo or full.")]
Transactions = Annotated[
    Path | None, typer.Option(help="Your own transactions, CSV or Parquet; needs --mapping.")
]
Mapping_ = Annotated[
    Path | None, typer.Option("--mapping", help="YAML file: which of your columns is which.")
]


@fraud.command("data", epilog=MAPPING_EXAMPLE)
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
    chosen = _read_config(config, settings, {"runs": runs, "seed": seed, "data.size": size})
    from data.fraud import run_data

    result = run_data(chosen, world=world, transactions=transactions, mapping=mapping)
    _finish(result, json=json, config=config, runs=runs)


@fraud.command("features")
def fraud_features(
    *, config: Config = None, runs: Runs = None, settings: Set = None, json: Json = None
) -> None:
    """Build the features and the online store, with Feast.

    In: the transactions and labels of `fraud data`. Out: a Feast registry, the history its
    training sets are joined from, and an online store that answers as of the moment it is asked.

    Example: throughline fraud features --runs runs/mine

    Next: throughline fraud train
    """
    chosen = _read_config(config, settings, {"runs": runs})
    from features.store import run_features

    _finish(run_features(chosen), json=json, config=config, runs=runs)


@fraud.command("train")
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
    """Train three models, compare them, register the best.

    In: features as of each transaction, labels that have matured, split in time order. Out:
    logistic regression,
    LightGBM and a PyTorch network, calibrated, with intervals and baselines beside them, in
    MLflow; the best becomes champion if there is none, else challenger. A leak stops the run.

    Example: throughline fraud train --set training.num_trials=30

    Next: throughline fraud serve
    """
    chosen = _read_config(config, settings, {"runs": runs, "seed": seed})
    as_of = _read_time("--now", now)
    from training.fraud import run_train

    _finish(run_train(chosen, now=as_of, only=only), json=json, config=config, runs=runs)


@fraud.command("serve")
def fraud_serve(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    json: Json = None,
) -> None:
    """Serve the champion over HTTP with BentoML, until Ctrl-C.

    In: the champion and the online store. Out: POST /predict and /predict_batch (score, decision,
    reasons), the API's page at /, /readyz, and a prediction log for `fraud monitor`. A newly
    promoted champion is picked up without a restart.

    Example: throughline fraud serve --port 3001

    Next, in another terminal: throughline fraud load
    """
    changes = {"runs": runs, "serving.host": host, "serving.port": port}
    chosen = _read_config(config, settings, changes)
    from serving.server import run_serve

    _finish(run_serve(chosen), json=json, config=config, runs=runs)


@fraud.command("load")
def fraud_load(
    *,
    config: Config = None,
    runs: Runs = None,
    seed: Seed = None,
    settings: Set = None,
    url: Annotated[str | None, typer.Option(help="A running service, on this machine.")] = None,
    json: Json = None,
) -> None:
    """Send a bounded load to the service, report percentiles.

    In: random customers of the runs folder; every answer is checked. Out: requests, errors,
    requests per second and latency percentiles, closed loop, on shared cores.

    Example: throughline fraud load --set load.num_requests=20000

    Next: throughline fraud monitor
    """
    chosen = _read_config(config, settings, {"runs": runs, "seed": seed})
    from serving.loadtest import run_load

    _finish(run_load(chosen, url=url), json=json, config=config, runs=runs)


@fraud.command("monitor")
def fraud_monitor(
    *,
    config: Config = None,
    runs: Runs = None,
    settings: Set = None,
    now: Annotated[str | None, typer.Option(help="Look as of this UTC time; ISO 8601.")] = None,
    since: Annotated[str | None, typer.Option(help="Look at predictions from then on.")] = None,
    json: Json = None,
) -> None:
    """Look for drift, and decide whether to retrain.

    In: the prediction log, the training reference, labels that have matured: what was served
    against what was trained on. Out: Evidently reports (HTML and JSON) and a decision with its
    reasons; data quality is judged first.

    Example: throughline fraud monitor --now 2026-05-01T00:00:00Z

    Next: what the decision says
    """
    chosen = _read_config(config, settings, {"runs": runs})
    as_of, start = _read_time("--now", now), _read_time("--since", since)
    from monitoring.fraud import run_monitor

    _finish(run_monitor(chosen, now=as_of, since=start), json=json, config=config, runs=runs)


@fraud.command("demo", epilog=MAPPING_EXAMPLE)
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

    Data, features, three models, service, load, a changed world, drift, retraining, promotion.

    In: nothing, or your own transactions with a mapping. Out: a table on the terminal,
    summary.json and report.html (one page with every picture) in the runs folder.

    Example: throughline fraud demo --seed 11

    Example: throughline fraud demo --transactions cards.csv --mapping cards.yaml

    Next: open runs/demo/report.html
    """
    chosen = _read_config(config, settings, {"runs": runs, "seed": seed, "data.size": size})
    from fraud_demo import run_demo

    _finish(run_demo(chosen, transactions=transactions, mapping=mapping), json=json)


def _read_config(
    path: Path | None, settings: list[str] | None, options: Mapping[str, object]
) -> FraudConfig:
    """Read the configuration file, then lay options over it, then ``--set`` over both."""
    import yaml

    from configs.schema import DEFAULT_FRAUD_CONFIG, load_fraud_config

    changes = {key: value for key, value in options.items() if value is not None}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: write KEY=VALUE, as training.num_trials=4")
        changes[key] = yaml.safe_load(value)
    return load_fraud_config(path or DEFAULT_FRAUD_CONFIG, changes=changes)


def _read_time(option: str, text: str | None) -> pd.Timestamp | None:
    """Read an ISO time with its zone; a time without one could mean two instants."""
    if text is None:
        return None
    import pandas as pd

    try:
        time = pd.Timestamp(text)
    except ValueError as error:
        raise ValueError(f"{option} {text}: not a time; write 2026-05-01T00:00:00Z") from error
    if time.tzinfo is None:
        raise ValueError(f"{option} {text}: has no time zone; write {text}Z for UTC")
    return time.tz_convert("UTC")


def _finish(
    result: Mapping[str, Any],
    *,
    json: Path | None,
    config: Path | None = None,
    runs: Path | None = None,
) -> None:
    """Write the result as JSON where asked, then print it; the next command gets the same place."""
    from configs.files import write_json
    from configs.terminal import print_result

    place = {"--config": config, "--runs": runs}
    options = "".join(f" {name} {value}" for name, value in place.items() if value is not None)
    shown = {**result, "wrote": [*result["wrote"]], "next": result["next"] + options}
    if json is not None:
        write_json(json, shown)
        shown["wrote"].append(str(json))
    print_result(shown)


def main() -> None:
    """Run the command line and exit: 0 done, 2 the user's mistake, 130 stopped by Ctrl-C."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # the libraries' own; `python -W default -m throughline`
    try:
        status = app(prog_name="throughline", standalone_mode=False)
    except TyperException as error:
        message = error.format_message().replace("Value error, ", "")
        if message.startswith("Usage:"):  # a command without its stage: show the help
            sys.exit(message)
        _fail(f"{message} (see throughline --help)")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (ValueError, OSError) as error:
        if os.environ.get("THROUGHLINE_TRACEBACK"):
            raise
        _fail(str(error))
    if status == 130:
        print("stopped; nothing half-written", file=sys.stderr)
    sys.exit(status or 0)


def _fail(message: str) -> None:
    """Print one line on standard error and exit with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
