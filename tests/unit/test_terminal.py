"""What a stage returns is readable on a terminal, and ends with what to run next."""

import io

import pytest
from rich.console import Console

from configs.progress import show_progress
from configs.terminal import format_value, print_result


def read_printed(result: dict, *, width: int = 80) -> list[str]:
    text = io.StringIO()
    print_result(result, console=Console(file=text, width=width))
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_the_last_lines_say_what_was_written_and_what_to_run_next():
    lines = read_printed({"next": "throughline fraud train", "wrote": ["a", "b"], "rows": 3})
    assert lines == ["rows  3", "wrote  a", "wrote  b", "next:  throughline fraud train"]


def test_a_mapping_of_mappings_becomes_a_table_with_a_column_per_key():
    lines = read_printed({"models": {"lightgbm": {"roc_auc": 0.9}, "pytorch": {"brier": 0.25}}})
    assert [line.split() for line in lines if line.strip()][1:] == [
        ["LightGBM", "PyTorch", "network"],
        ["─" * len(lines[3].strip())],
        ["ROC", "AUC", "0.9"],
        ["brier", "0.25"],
    ]


def test_more_groups_than_columns_fit_become_rows_without_their_intervals():
    group = {"frauds": 3, "roc_auc": 0.9, "roc_auc_interval": [0.8, 0.95]}
    lines = read_printed({"patterns": {f"p{i}": group for i in range(5)}})
    assert [line.split() for line in lines if line.strip()][1:] == [
        ["frauds", "ROC", "AUC"],
        ["─" * len(lines[3].strip())],
        *([f"p{i}", "3", "0.9"] for i in range(5)),
    ]


def test_a_number_is_never_cut_and_columns_that_do_not_fit_are_left_out_by_name_of_the_file():
    group = {"qps": 34_311.5, "p50_ms": 548.9, "p99_ms": 938.5, "errors": 0, "ratio_to_peer": 348.1}
    groups = {f"a service with a long name {i}": group for i in range(5)}
    wide, narrow = (read_printed({"rows": groups}, width=width) for width in (100, 45))
    assert any("348.1" in line for line in wide)
    assert sum("34,312" in line for line in narrow) == 5
    assert not any("348.1" in line for line in narrow)
    assert any("see --json" in line for line in narrow)


def test_four_models_with_their_intervals_fit_a_terminal_of_80_columns():
    model = {"average_precision": 0.6621, "average_precision_interval": [0.575, 0.729]}
    model |= {"fold_average_precisions": [0.5282, 0.6951, 0.673]}
    names = ("logistic_regression", "lightgbm", "pytorch", "blend")
    lines = read_printed({"models": dict.fromkeys(names, model)})
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if "0.6621" in line] == [
        ["average", "precision", *["0.6621"] * 4]
    ]
    assert [line.split() for line in lines if "0.575" in line] == [
        ["95", "%", "interval", *["0.575", "to"] * 4]
    ]
    assert [line.split() for line in lines if "0.729" in line] == [["0.729"] * 4]
    assert [line.split() for line in lines if "0.6951" in line] == [["0.6951,"] * 4]


def test_what_is_nested_deeper_than_a_table_is_left_to_the_json_file():
    lines = read_printed(
        {"models": {"a": {"slices": {"new": 1}, "score": 0.5}}, "rows": [{"x": 1}]}
    )
    assert "slices" not in "".join(lines)
    assert "rows" not in "".join(lines)
    assert "score" in "".join(lines)


def test_a_small_mapping_takes_one_line_with_what_is_one_level_deeper_in_brackets():
    lines = read_printed({"counts": {"rows": 3, "added": {"s1": 1, "s2": 2}, "deep": {"x": {}}}})
    assert lines == ["counts  rows: 3; added (s1: 1, s2: 2)"]


def test_a_hash_is_shown_by_its_first_letters():
    assert read_printed({"sha256": "0a" * 32}) == ["sha256  0a0a0a0a0a0a"]


def test_text_from_a_users_file_is_not_read_as_markup():
    lines = read_printed({"column": "[red]amount[/red] [/]", "wrote": ["a[b]c"], "next": "[x]"})
    assert lines == ["column  [red]amount[/red] [/]", "wrote  a[b]c", "next:  [x]"]


def test_a_long_path_is_not_broken_over_lines():
    path = "/".join(["folder"] * 30)
    assert read_printed({"wrote": [path]}) == [f"wrote  {path}"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1440.4, "1,440"),
        (4.748e-12, "4.7e-12"),
        ("2026-04-02T13:05:59.429556+00:00", "2026-04-02 13:05"),
        (list("abcdefghijklmn"), "a, b, c, d, e, f, g, h, i, j, k, l, and 2 more"),
        (
            ["a sentence of more than a few words " * 2, "b"],
            "a sentence of more than a few words " * 2 + "\nb",
        ),
    ],
)
def test_a_value_is_short(value, text):
    assert format_value(value) == text


def test_progress_is_shown_on_standard_error_only(capsys):
    with show_progress("Counting", total=2) as advance:
        advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Counting" in captured.err
