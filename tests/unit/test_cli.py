"""The command line answers at once, teaches, and turns a mistake into one line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import throughline

ROOT = Path(__file__).parents[2]
STAGES = (
    *("data", "features", "stream", "rebuild", "parity", "train", "serve", "load", "monitor"),
    *("tick", "status", "rollback", "timelapse", "handbook", "demo"),
)
TINY = (
    "--set=data.sizes={tiny: {num_customers: 30, num_merchants: 20, num_days: 20}}",
    "--size=tiny",
)


@pytest.fixture(autouse=True)
def _keep_environment(monkeypatch):
    """Undo what ``main`` sets for the libraries below."""
    for name in throughline.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; return its exit code, output and error output."""

    def run_command(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["throughline", *arguments])
        with pytest.raises(SystemExit) as caught:
            throughline.main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run_command


def test_help_lists_the_problems_and_the_stages_that_exist(run):
    code, text, _ = run("fraud", "--help")
    assert code == 0
    commands = text.split("Commands:")[1].split("\n")
    assert [line.split()[0] for line in commands if line.strip()] == list(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_the_help_of_a_stage_says_what_goes_in_what_comes_out_and_what_is_next(run, stage):
    code, text, _ = run("fraud", stage, "--help")
    assert code == 0
    for part in (
        "In:",
        "Out:",
        f"Example: throughline fraud {stage}",
        "Next",
        "--config",
        "--json",
    ):
        assert part in text


SLOW = {"matplotlib", "scipy", "mlflow", "feast", "torch", "bentoml", "numba", "lightgbm"}


def list_loaded(*arguments: str) -> set[str]:
    """Run the command line in a process of its own; return the packages it imported."""
    script = (
        "import sys, throughline\n"
        f"sys.argv = ['throughline', *{arguments}]\n"
        "try: throughline.main()\n"
        "finally: print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    return set(json.loads(finished.stdout.splitlines()[-1].replace("'", '"')))


def test_help_is_answered_without_importing_a_stage_or_a_library_that_is_slow_to_load():
    assert not list_loaded("fraud", "--help") & {"pandas", "numpy", *SLOW}


@pytest.mark.parametrize(
    "arguments",
    [
        ("fraud", "timelapse", "--only", "typo"),
        ("fraud", "timelapse", "--transactions", "mine.csv"),
        ("fraud", "tick", "--now", "typo"),
        ("fraud", "load", "--url", "http://127.0.0.1:1"),
        ("fraud", "load", "--url", "http://127.0.0.1:1", "--replay-days", "2"),
    ],
    ids=" ".join,
)
def test_a_mistyped_argument_is_refused_before_a_slow_library_is_imported(arguments):
    assert not list_loaded(*arguments) & SLOW


def test_a_look_at_what_a_tick_would_decide_does_not_wait_for_feast(tmp_path):
    look = ("fraud", "tick", "--dry-run", "--now", "2026-05-01T00:00:00Z", f"--runs={tmp_path}")
    loaded = list_loaded(*look)
    assert {"lightgbm", "sqlalchemy"} <= loaded  # it came as far as looking for a champion
    assert not loaded & {"feast", "torch"}


def test_the_help_of_the_timelapse_lists_its_worlds(run):
    _, text, _ = run("fraud", "timelapse", "--help")
    assert "--only unchanged|gradual|abrupt|broken_feed" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fraud", "data", "--config", "absent.yaml"], "no configuration file at absent.yaml"),
        (["fraud", "data", "--set", "training.num_trails=3"], "--set training.num_trails: no such"),
        (["fraud", "data", "--set", "seed=[1"], "--set seed=[1: its value is not YAML"),
        (["fraud", "serve", "--port", "65536"], "'--port'"),
        (["fraud", "data", "--set", "seed"], "write KEY=VALUE"),
        (["fraud", "data", "--seed", "many"], "'--seed'"),
        (["fraud", "data", "--size", "huge"], "demo, full"),
        (["fraud", "data", "--world", "flat"], "'simulated', 'handbook'"),
        (["fraud", "data", "--sise", "demo"], "Possible options"),
        (["fraud", "dta"], "Did you mean 'data'"),
        (["fraud", "train", "--now", "2026-05-01"], "write 2026-05-01T00:00:00Z"),
        (["fraud", "train", "--now", "tomorrow-ish"], "not a time"),
        (["fraud", "tick", "--now", "tomorrow-ish"], "not a time"),
        (["fraud", "load", "--url", "http://127.0.0.1:1"], "nobody listens at --url http://127.0"),
        (
            ["fraud", "load", "--url", "http://127.0.0.1:1"],
            "start a service with `throughline fraud",
        ),
        (
            ["fraud", "load", "--url", "http://127.0.0.1:http"],
            "nobody listens at --url http://127.0",
        ),
        (["fraud", "load", "--url", "http://example.com"], "only goes to this machine"),
        (["fraud", "timelapse", "--only", "sudden"], "'unchanged', 'gradual', 'abrupt', 'broken_"),
        (["fraud", "timelapse", "--mapping", "mine.yaml"], "--transactions and --mapping; give"),
        (["fraud", "data", "--transactions", "absent.csv", "--mapping", "m.yaml"], "m.yaml"),
        (["fraud", "features", "--runs", "absent"], "'throughline fraud data --runs absent'"),
        (["fraud", "serve", "--runs", "absent"], "absent"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_exit_code_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    *progress, last = err.splitlines()
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in "".join(progress)


MAPPING = """
columns: {transaction_id: id, event_time: time, customer_id: who, amount: amount, is_fraud: fraud}
"""
ROWS = [f"t{day},2026-01-{day:02}T10:00:00Z,ann,{day}.5,{day % 2}" for day in range(1, 29)]


@pytest.fixture
def read_rows(run, tmp_path):
    """Write rows as a user's file and run the data stage on it, into ``tmp_path / "runs"``."""

    def read(rows: list[str]) -> tuple[object, str, str]:
        file, mapping = tmp_path / "cards.csv", tmp_path / "cards.yaml"
        file.write_text("\n".join(["id,time,who,amount,fraud", *rows]) + "\n")
        mapping.write_text(MAPPING)
        place = f"--transactions={file}", f"--mapping={mapping}", f"--runs={tmp_path}/runs"
        return run("fraud", "data", *place)

    return read


def test_sound_data_are_taken(read_rows):
    assert read_rows(ROWS)[0] == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has a header but no rows"),
        ([row.rpartition(",")[0] + "," for row in ROWS], "has a value in column fraud"),
        ([row.replace("Z", "") for row in ROWS], "times without a time zone"),
        ([row.replace("Z", "") if "t9" in row else row for row in ROWS], "and others with one"),
        ([row.replace(".5,", " EUR,") for row in ROWS], "amount"),
        ([*ROWS, *ROWS], "transaction_id"),
        ([row.replace("2026", "1826") for row in ROWS], "event_time"),
    ],
    ids=["empty", "unlabelled", "local", "mixed", "text", "twice", "ancient"],
)
def test_faulty_data_are_one_line_and_exit_code_2_and_leave_nothing(
    read_rows, tmp_path, rows, message
):
    code, out, err = read_rows(rows)
    assert (code, out) == (2, "")
    *progress, last = err.splitlines()
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in "".join(progress)
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


def test_a_command_without_its_stage_shows_the_help(run):
    code, _, _ = run("fraud")
    assert "Commands:" in str(code)


def test_a_stage_prints_its_result_and_writes_the_same_as_json(run, tmp_path):
    result = tmp_path / "result.json"
    code, out, _ = run("fraud", "data", "--runs", f"{tmp_path}/runs", "--json", str(result), *TINY)
    assert code == 0
    runs = json.loads(result.read_text())["wrote"][0].rpartition("/")[0]
    assert out.splitlines()[-2:] == [
        f"wrote  {result}",
        f"next:  throughline fraud features --runs {runs}",
    ]
    assert all(Path(path).is_file() for path in json.loads(result.read_text())["wrote"])


def test_the_same_seed_makes_the_same_world_and_another_seed_another(run, tmp_path):
    def make_world(seed: int, name: str) -> bytes:
        run("fraud", "data", f"--runs={tmp_path}/{name}", f"--seed={seed}", *TINY)
        return (tmp_path / name / "transactions.parquet").read_bytes()

    assert make_world(1, "a") == make_world(1, "b") != make_world(2, "c")


def test_a_traceback_is_shown_to_those_who_ask_for_it(monkeypatch):
    monkeypatch.setenv("THROUGHLINE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["throughline", "fraud", "data", "--config", "absent.yaml"])
    with pytest.raises(FileNotFoundError):
        throughline.main()


def test_libraries_do_not_phone_home_and_a_value_the_user_set_wins(run, monkeypatch):
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    run("--help")
    assert os.environ["DO_NOT_TRACK"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_one_line_and_nothing_half_written(tmp_path, sent):
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "throughline", "fraud", "data", "--size=full"]
    command += [f"--runs={runs}"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
    ) as process:
        assert process.stderr is not None
        process.stderr.read(1)  # the world is simulated, and about to be checked
        process.send_signal(sent)
        err = process.stderr.read()
    assert process.returncode == 130
    assert err.endswith("stopped; nothing half-written\n")
    assert "Traceback" not in err
    assert not runs.exists() or list(runs.iterdir()) == []
