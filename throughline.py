"""The command line: ``throughline <problem> <stage>``.

A person's mistake is one line on standard error and exit code 2; Ctrl-C is exit code 130, and no
file is left half-written; anything else that fails is a bug of ours, with its traceback.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings

import typer
from typer.exceptions import TyperException

import bench_commands
import fraud_commands
import status_commands
from command_line import read_place, repeat_place

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
    "OMP_WAIT_POLICY": "passive",  # LightGBM's threads spin while they wait, on cores others need
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help wraps well and answers in a third of the time
    pretty_exceptions_enable=False,
    help="Throughline: an ML system from raw events to served predictions and back to retraining.",
)
app.add_typer(fraud_commands.app, name="fraud")
app.add_typer(status_commands.app, name="monitor")
app.add_typer(bench_commands.app, name="bench")


def main() -> None:
    """Run the command line and exit: 0 done, 2 the user's mistake, 130 stopped by Ctrl-C."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:  # `python -W default -m throughline` shows the libraries' warnings
        warnings.simplefilter("ignore")
        warnings.showwarning = _drop_warning  # SQLAlchemy sets a filter of its own on import
    # SIGTERM ends like Ctrl-C: what a command started, a service for one, is stopped with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        _fail(repeat_place(str(error), **read_place(sys.argv[1:])))
    if status == 130:
        print("stopped; nothing half-written", file=sys.stderr)
    sys.exit(status or 0)


def _drop_warning(*_: object, **__: object) -> None:
    """Show nothing."""


def _fail(message: str) -> None:
    """Print one line on standard error and exit with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
