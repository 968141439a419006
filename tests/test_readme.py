"""The README's library example runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
    assert float(index) == pytest.approx(float(index))
    assert "measur" in verdict


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
