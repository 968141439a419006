"""The README's library example runs as it stands there; what the docs name exists."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from pipeline import cli

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
