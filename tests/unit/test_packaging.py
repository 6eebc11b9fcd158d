"""What a fresh machine installs is pinned, whole, and free of any one machine's details."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from monitoring.benchmark_table import LOOP_TITLES, SERVING_TITLES, TITLES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
PINS = {name: version for name, _, version in (line.partition("==") for line in LOCK)}
DEPENDENCIES = [
    Requirement(text)
    for text in (
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["bench"],
        *PROJECT["project"]["optional-dependencies"]["dev"],
    )
]
OUR_PACKAGES = {"configs", "data", "features", "training", "serving", "monitoring"}
LOCUSTFILE = ROOT / "locustfile.py"  # for people who have Locust; read by it, imported by nobody
OUR_MODULES = {path.stem for path in ROOT.glob("*.py") if path != LOCUSTFILE}
DISTRIBUTIONS = {
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "hdrh": "hdrhistogram",
    "xgboost": "xgboost-cpu",
    "pydantic_core": "pydantic",  # one release of the one pins the other
}


def find_imports(source: Path) -> set[str]:
    """Names of the top-level modules a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_every_module_at_the_root_is_packaged_and_kept_out_of_the_stages():
    (edge,) = (
        contract
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract["name"].startswith("The command line")
    )
    assert set(PROJECT["tool"]["setuptools"]["py-modules"]) == OUR_MODULES
    assert set(edge["forbidden_modules"]) == OUR_MODULES


def test_the_lock_holds_plain_pins_only():
    assert [line for line in LOCK if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda dependency: dependency.name)
def test_every_dependency_has_a_floor_and_its_pin_meets_it(dependency):
    assert any(bound.operator == ">=" for bound in dependency.specifier)
    assert dependency.specifier.contains(PINS[canonicalize_name(dependency.name)])


def test_the_lock_pulls_no_accelerator_packages():
    heavy = [name for name in PINS if re.match(r"nvidia-(?!ml-py)|cuda|triton", name)]
    assert heavy == []


def test_every_library_that_is_imported_is_declared():
    sources = [path for folder in OUR_PACKAGES for path in (ROOT / folder).glob("*.py")]
    sources += (path for path in ROOT.glob("*.py") if path != LOCUSTFILE)
    imported = set().union(*(find_imports(path) for path in sources))
    imported -= OUR_PACKAGES | OUR_MODULES | set(sys.stdlib_module_names)
    declared = {canonicalize_name(dependency.name) for dependency in DEPENDENCIES}
    missing = {name for name in imported if DISTRIBUTIONS.get(name, name) not in declared}
    assert missing == set()


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    printed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    listed = [line.split()[1] for line in printed.splitlines()]
    assert sorted(listed) == sorted(phony[1].split())


def test_the_readmes_table_of_results_stands_between_its_markers():
    readme = (ROOT / "README.md").read_text()
    assert readme.count("<!-- results:begin -->") == readme.count("<!-- results:end -->") == 1


def test_the_file_map_of_the_readme_names_files_that_exist():
    readme = (ROOT / "README.md").read_text()
    names = re.findall(r"^ *([\w.-]+/(?:[\w.-]+)?|[\w-]+\.\w+) {2,}\S", readme, re.MULTILINE)
    assert {"configs/", "monitoring/", "tests/", "throughline.py"} <= set(names)
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_make_bench_runs_every_bench_whose_table_is_in_the_documents():
    finished = subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/.installed", "bench", "PY=echo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = {*TITLES, *SERVING_TITLES, *LOOP_TITLES, "load"}
    lines = [line for line in finished.stdout.splitlines() if line.startswith("-m ")]
    assert set(lines) == {
        f"-m throughline bench {name.replace('-steps', ' --ablate')} --json runs/bench/{name}.json"
        for name in shown
    }
