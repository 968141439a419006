"""The README's library example runs as it stands there; what the docs name exists."""

from __future__ import annotations

import ast
import csv
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pipeline
from pipeline import cli
from pipeline.core.results import Status

ROOT = Path(__file__).resolve().parent.parent


def lines_of_the_example(monkeypatch, capsys, subject: str) -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(ROOT)
    code = blocks[0].replace('"sub-01"', f'"{subject}"')
    exec(compile(code, "README.md", "exec"), {})
    return capsys.readouterr().out.splitlines()


def test_the_library_example_runs(monkeypatch, capsys):
    """On the smaller of the sample subjects, whose lean volumes are estimates without a verdict."""
    lines = lines_of_the_example(monkeypatch, capsys, "sub-02")
    assert len(lines) == 30
    name, index, verdict = lines[8].split()
    assert (name, verdict) == ("vastus_lateralis", "None")
    assert abs(float(index)) < 30


@pytest.mark.slow
def test_the_library_example_runs_as_it_stands(monkeypatch, capsys):
    lines = lines_of_the_example(monkeypatch, capsys, "sub-01")
    assert len(lines) == 30
    name, index, verdict = lines[8].split(" ", 2)
    assert name == "vastus_lateralis"
    truth = (ROOT / "sample_data/truth/sub-01_truth.tsv").read_text().splitlines()
    planted = next(row for row in csv.DictReader(truth, delimiter="\t") if row["muscle"] == name)
    # 95 % of the errors of the network's muscles stay below 6 points (docs/validation.md).
    assert float(index) == pytest.approx(float(planted["grid_asymmetry_lean_percent"]), abs=6.0)
    assert "measur" in verdict


def test_every_make_target_and_command_of_the_docs_exists(capsys):
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    # In code alone: "do not make a claim" names no target.
    code = re.findall(r"`([^`\n]+)`|^    (\S.*)$", text, re.MULTILINE)
    lines = [one or other for one, other in code]
    targets = {t for line in lines for t in re.findall(r"\bmake ([a-z][a-z-]*)", line)}
    existing = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(targets) > 12
    assert targets <= existing
    commands = {c for line in lines for c in re.findall(r"\bmyosymmetry ([a-z]+)\b", line)}
    commands -= {"data"}
    assert {"compare", "inspect", "validate"} <= commands
    for command in commands:
        with pytest.raises(SystemExit, match="0"):
            cli.main([command, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: myosymmetry {command} ")
    names = {n for line in lines for n in re.findall(r"\bNAME=([a-z_]+)", line)}
    assert names
    assert all((ROOT / f"benchmarks/{name}.py").is_file() for name in names)


def codes_of(module: ModuleType) -> Iterator[str]:
    """Codes of the findings that a module can make."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    makers = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and "code" in [argument.arg for argument in function.args.args]
        and "Finding(" in ast.unparse(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple):
            names = node.target.elts if isinstance(node.target, ast.Tuple) else [node.target]
            if ast.unparse(names[0]) == "code":
                yield from (ast.literal_eval(row.elts[0]) for row in node.iter.elts)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name == "Finding":
            yield from values_of(
                next(word.value for word in node.keywords if word.arg == "code"), module
            )
        elif name in makers and node.args:
            yield from values_of(node.args[0], module)
    for table in ("LEVEL_DOUBTS", "_TOLD"):
        yield from getattr(module, table, {})
    yield from (row[0] for row in getattr(module, "_ORIGIN_DOUBTS", {}).values())
    yield from (row[0] for row in getattr(module, "_DIFFERENCES", ()))


def values_of(expression: ast.expr, module: ModuleType) -> Iterator[str]:
    """What an expression for a code can be; nothing for an argument that is passed on."""
    if isinstance(expression, ast.Constant):
        yield expression.value
    elif isinstance(expression, ast.IfExp):
        yield from (*values_of(expression.body, module), *values_of(expression.orelse, module))
    elif isinstance(expression, ast.Subscript):
        yield from getattr(module, ast.unparse(expression.value))
    elif isinstance(expression, ast.JoinedStr):
        assert ast.unparse(expression) == "f'muscles_{status}'"
        yield from (f"muscles_{status}" for status in (Status.TRUNCATED, Status.UNRELIABLE))
    elif isinstance(expression, ast.Name):
        value = getattr(module, expression.id, None)
        if isinstance(value, str):
            yield value


def test_every_finding_is_explained():
    """`docs/findings.md` names every code that the program can write, and no other."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(pipeline.__path__, "pipeline.")
    ]
    written = {code for module in modules for code in codes_of(module)}
    rows = [line for line in (ROOT / "docs/findings.md").read_text().splitlines() if "|" in line]
    named = [code for row in rows for code in re.findall(r"`([a-z0-9_]+)`", row.split("|")[1])]
    assert len(named) == len(set(named)) > 60
    assert set(named) == written
