"""The demo's page is one whole file that shows what the summary holds and nothing else."""

import re
from html.parser import HTMLParser

import pytest

from configs.files import write_json
from monitoring.drift_figure import plot_drift
from monitoring.handbook_table import TITLES
from monitoring.report import write_demo_page
from monitoring.results_table import BEGIN, END, main, replace_sections, write_results_table
from tests.unit.test_load_soak import make_soak_summary

SVG = '<svg viewBox="0 0 1 1"><defs><path id="a"/></defs><use xlink:href="#a"/></svg>'
LEAST = {
    "seconds_total": 120.0,
    "transactions": 300_000,
    "fraud_rate": 0.0081,
    "models": {
        "logistic_regression": {"average_precision": 0.51, "roc_auc": 0.9},
        "lightgbm": {
            "average_precision": 0.7,
            "average_precision_interval": [0.66, 0.74],
            "roc_auc": 0.95,
        },
    },
    "champion": {"name": "lightgbm", "version": "2"},
    "parity": {"max_abs_difference": 1e-13},
    "serving": {"requests": 2000, "errors": 0, "p50_ms": 8.1, "p99_ms": 22.4, "qps": 812.0},
    "drift": {"detected": True, "features": ["amount_log"]},
    "retrain": {
        "triggered": True,
        "promoted": True,
        "average_precision_before": 0.52,
        "average_precision_after": 0.634,
    },
}
MORE = {
    "source": "cards.csv <script>alert(1)</script>",
    "timeline": [{"time": "2026-04-02T13:05:00Z", "title": "Drift", "detail": "a & b"}],
    "split": {
        "now": "2026-04-20T00:00:00Z",
        "train": {"start_time": "2026-02-01T00:00:00Z", "end_time": "2026-03-18T00:00:00Z"},
        "folds": [],
    },
    "patterns": {"ip_ring": {"transactions": 40, "frauds": 4, "average_precision": 0.625}},
    "slices": {"new_customers": {"transactions": 30, "frauds": 0}},
    "baselines": {"constant": {"average_precision": 0.0081, "roc_auc": 0.5}},
    "dropped_features": {"is_known_device": "needs column device_id"},
    "notes": ["one machine"],
    "seconds": {"data": 6.0, "train": 88.0},
    "environment": {"cores": 2, "cpu": "a <b>|cpu"},
}
REPORTS = [
    {"name": "before", "columns": {"amount_log": {"value": 0.0, "threshold": 0.1}}},
    {"name": "after", "columns": {"amount_log": {"value": 0.5, "threshold": 0.1}}},
]


class Tags(HTMLParser):
    """Collects tags, and checks that each one that must be closed is."""

    VOID = ("meta", "br", "path", "use", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, _attrs):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def render(tmp_path):
    def render_page(summary: dict, figures: dict | None = None) -> str:
        write_demo_page(tmp_path / "report.html", summary=summary, figures=figures)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return render_page


def test_the_least_summary_makes_a_well_formed_page(render):
    tags = Tags()
    tags.feed(render(LEAST))
    assert tags.open == []
    assert tags.seen.count("table") == 2  # the models, and the gate


def test_the_page_shows_the_headline_numbers(render):
    page = " ".join(render(LEAST).split())
    for text in ("0.700", "0.660 to 0.740", "22.4 ms", "0.520 → 0.634", "1e-13", "2.0 min"):
        assert text in page


def test_every_further_section_of_the_summary_is_shown(render):
    page = render(LEAST | MORE)
    for text in (
        "2026-04-02 13:05",
        "2026-03-18",
        "constant",
        "ip ring",
        "0.625",
        "is_known_device",
        "one machine",
    ):
        assert text in page


def test_a_section_the_summary_lacks_is_left_out(render):
    page = render(LEAST)
    for title in ("The story", "The machine", "What this run does not show", "Where to draw"):
        assert title not in page


def test_text_of_the_summary_is_escaped(render):
    page = render(LEAST | MORE)
    assert "<script" not in page
    assert "a &lt;b&gt;|cpu" in page


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(render):
    page = render(LEAST | MORE | {"drift": LEAST["drift"] | {"reports": REPORTS}}, {"cost": SVG})
    addresses = re.findall(r"""(?:src|href|url\()=?["'(]*(?!#)(\w+:)""", page)
    assert addresses == []
    assert "@import" not in page


def test_pictures_keep_their_own_ids_among_many_on_one_page(render):
    page = render(LEAST, {"cost": SVG, "calibration": SVG})
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert 'xlink:href="#cost-a"' in page


def test_a_picture_that_holds_a_script_is_refused(render):
    with pytest.raises(ValueError, match="'cost' holds a script"):
        render(LEAST, {"cost": "<svg><script>alert(1)</script></svg>"})


def test_a_picture_that_is_no_svg_is_refused_by_name(render):
    with pytest.raises(ValueError, match="'cost' is not an SVG"):
        render(LEAST, {"cost": "<img>"})


def test_a_run_without_drift_and_retraining_says_so(render):
    kept = {"triggered": False, "promoted": False}
    kept |= {"average_precision_before": 0.52, "average_precision_after": None}
    page = render(LEAST | {"drift": {"detected": False, "features": []}, "retrain": kept})
    assert "No drift was found" in page
    assert "do not retrain" in page


def test_the_drift_picture_puts_the_furthest_feature_on_top():
    columns = {f"f{i}": {"value": i / 10, "threshold": 1.0} for i in range(30)}
    svg = plot_drift([{"name": "before", "columns": {}}, {"name": "after", "columns": columns}])
    names = re.findall(r">(f\d+)<", svg)
    assert names == [f"f{i}" for i in range(14, 30)]


def test_the_same_reports_draw_the_same_picture():
    assert plot_drift(REPORTS) == plot_drift(REPORTS)


def test_no_compared_feature_is_an_error():
    with pytest.raises(ValueError, match="no drift report"):
        plot_drift([{"name": "before", "columns": {}}])


def test_the_table_replaces_what_stands_between_the_markers_and_nothing_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Top\n{BEGIN}\nold\n{END}\nbottom\n")
    write_results_table(readme, LEAST | MORE)
    text = readme.read_text()
    assert text.startswith(f"# Top\n{BEGIN}\n| measured")
    assert text.endswith(f"\n{END}\nbottom\n")
    assert "old" not in text
    assert "LightGBM (champion): average precision, ROC AUC | 0.700 (0.660 to 0.740), 0.950" in text
    assert all(line.count("|") - line.count("\\|") == 3 for line in text.splitlines()[2:-2])


def test_writing_the_table_twice_changes_nothing(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}{END}")
    write_results_table(readme, LEAST)
    once = readme.read_text()
    write_results_table(readme, LEAST)
    assert readme.read_text() == once


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_an_error_and_stays_as_it_was(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="needs the markers"):
        write_results_table(readme, LEAST)
    assert readme.read_text() == text


def test_make_docs_without_a_run_says_to_run_the_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="run make demo first"):
        main()


def test_make_docs_reads_the_demos_summary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(f"{BEGIN}{END}")
    write_json(tmp_path / "runs" / "demo" / "summary.json", LEAST)
    main()
    assert "300,000, 0.81 %" in (tmp_path / "README.md").read_text()


def test_make_docs_writes_the_handbooks_tables_where_it_was_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(f"{BEGIN}{END}")
    (tmp_path / "docs").mkdir()
    document = tmp_path / "docs" / "handbook.md"
    document.write_text(f"top\n{BEGIN}{END}\nbottom")
    write_json(tmp_path / "runs" / "demo" / "summary.json", LEAST)
    main()
    assert document.read_text() == f"top\n{BEGIN}{END}\nbottom"
    tables = {key: {"coin": {"roc_auc": "0.500 (0.500, +0.000)"}} for key in TITLES}
    write_json(
        tmp_path / "runs" / "fraud" / "handbook" / "handbook.json",
        tables
        | {
            "environment": {"date": "2026-11-01", "cores": 2, "cpu": "a cpu"},
            "seconds_total": 300.2,
        },
    )
    main()
    text = document.read_text()
    assert text.startswith(f"top\n{BEGIN}\n")
    assert text.endswith(f"{END}\nbottom")
    assert text.count("|  | ROC AUC |\n|---|---|\n| coin | 0.500 (0.500, +0.000) |") == len(TITLES)
    assert "Run on 2026-11-01, 2 cores, a cpu. It took 300 s." in text


def test_make_docs_writes_a_soak_and_its_picture_into_the_page_of_load_tests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load = tmp_path / "load"
    for folder in ("docs", "runs/bench", "load"):
        (tmp_path / folder).mkdir(parents=True)
    (load / "soak.svg").write_text(SVG)
    for name in ("benchmarks", "load"):
        (tmp_path / f"docs/{name}.md").write_text(f"top\n{BEGIN}\n{END}\n")
    write_json(
        tmp_path / "runs/bench/soak.json",
        make_soak_summary(wrote=[str(load / "soak.svg"), str(load / "load.html")]),
    )
    main()
    text = (tmp_path / "docs/load.md").read_text()
    assert "| second half | 10 |" in text
    assert "![Latency over a soak](pictures/soak.svg)" in text
    assert (tmp_path / "docs/pictures/soak.svg").read_text() == SVG


def test_a_section_that_was_not_run_anew_stays_as_it_is(tmp_path):
    document = tmp_path / "benchmarks.md"
    document.write_text(f"Words.\n{BEGIN}\n\n## A\n\nold a\n\n## B\n\nold b\n{END}\nMore.\n")
    replace_sections(document, ["", "## B", "", "new b", "", "## C", "c"])
    assert document.read_text() == (
        f"Words.\n{BEGIN}\n\n## A\n\nold a\n\n## B\n\nnew b\n\n## C\nc\n{END}\nMore.\n"
    )
