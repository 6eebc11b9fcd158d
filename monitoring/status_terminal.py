"""The status becomes what a person reads on a terminal; ``--json`` has the whole of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from configs.terminal import format_value, print_result
from monitoring.report import format_score

METRICS = (
    ("average_precision", "realised average precision"),
    ("card_precision_at_100", "realised card precision@100"),
    ("cost_per_1000", "realised cost per 1,000"),
    ("brier_score", "realised Brier score"),
)


def print_status(status: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print the status: facts, then a table each of alarms, decisions and transitions.

    Args:
        status: From ``monitoring.status.run_status``.
        console: Where to print; standard output when ``None``.
    """
    console = console or Console()
    print_result(_collect_facts(status), console=console)
    for table in _build_tables(status):
        console.print(table)
    notes = {"wrote": status["wrote"], "next": status["next"]}
    for note in status["notes"]:
        console.print(Text(f"note  {note}"), soft_wrap=True)
    print_result(notes, console=console)


def _collect_facts(status: Mapping[str, Any]) -> dict[str, Any]:
    champion, service = status["champion"], status["service"]
    since, until = format_value(champion["since"]), format_value(champion["trained_until"])
    looked = status["data_time"]
    facts: dict[str, Any] = {
        "as of": f"{format_value(status['time'])} (clock)",
        "last look": f"{format_value(looked)} (data)" if looked else "none yet",
        "champion": f"version {champion['version']} ({champion['kind']}), serves since {since} "
        f"(clock), trained on days until {until} (data)",
        "rollout": _describe_rollout(status["rollout"]),
        "service": f"{service['url']} answers with version {service['model_version']}"
        if service["answers"]
        else f"none answers on {service['url']}",
    }
    performance = status["performance"] or {}
    for key, words in METRICS:
        if performance.get(key) is not None:
            interval = performance.get(f"{key}_interval")
            ends = f", 95 % interval {format_score(interval)}" if interval else ""
            facts[words] = f"{format_score(performance[key])}{ends}"
    if performance:
        facts["immature"] = (
            f"{performance['immature_share']:.0%} of {performance['num_predictions']:,} "
            f"predictions, as of {format_value(performance['as_of'])} (data)"
        )
    if status["attempts"]:
        facts["under way"] = "; ".join(map(_describe_attempt, status["attempts"]))
    return facts


def _describe_attempt(attempt: Mapping[str, Any]) -> str:
    frozen = ", frozen: the feed is broken" if attempt["is_frozen"] else ""
    since = format_value(attempt["state_time"])
    return f"{attempt['trigger_key']} in {attempt['stage']} since {since} (data){frozen}"


def _describe_rollout(rollout: Mapping[str, Any] | None) -> str:
    if rollout is None:
        return "none"
    if rollout["stage"] == "shadow":
        return f"version {rollout['version']} scores in the shadow"
    return f"version {rollout['version']} answers {rollout['share']:.0%} of the customers"


def _build_tables(status: Mapping[str, Any]) -> Iterator[RenderableType]:
    if status["alarms"]:
        rows = [(a["since"], a["name"], [a["message"], a["advice"]]) for a in status["alarms"]]
        yield _build_table("open alarms", ("since (data)", "alarm", "what, and what to do"), rows)
    if status["decisions"]:
        rows = [(_show_times(d), _describe_action(d), d["reasons"]) for d in status["decisions"]]
        yield _build_table(
            "last decisions", ("time (data)", "decision", "reasons, the last time"), rows
        )
    if status["transitions"]:
        rows = [
            (step["time"], f"{step['from_state']} to {step['to_state']}", step["reasons"])
            for step in status["transitions"]
        ]
        yield _build_table("last transitions", ("time (data)", "step", "reasons"), rows)


def _show_times(decision: Mapping[str, Any]) -> str:
    first, last = (format_value(decision[name]) for name in ("first_time", "time"))
    return last if decision["count"] == 1 else f"{first}\nto {last}"


def _describe_action(decision: Mapping[str, Any]) -> str:
    times = decision["count"]
    return str(decision["action"]) if times == 1 else f"{decision['action']}, {times} times"


def _build_table(
    title: str, header: Sequence[str], rows: Sequence[tuple[str, str, Sequence[str]]]
) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(header[-1], overflow="fold")
    for time, name, texts in rows:
        table.add_row(format_value(time), Text(name), Text("\n".join(texts)))
    return table
