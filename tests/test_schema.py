"""The published schema: every field says what it is and in which unit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import ROOT
from factories import make_measures
from pydantic import ValidationError

from pipeline import cli
from pipeline.core.change import CHANGE_SCHEMA_VERSION, Changes
from pipeline.core.results import SCHEMA_VERSION, Measures

SCHEMAS = {model.__name__: model.model_json_schema() for model in (Measures, Changes)}

#: Ending of a field's name -> what its description must say.
UNITS = {"_ml": "mL", "_mm": "mm", "_mm2": "mm^2", "_percent": "percent", "_points": "points"}
#: How a description says that a number has no unit, or where its unit is.
UNITLESS = r"0 to 1|without unit|[Cc]ount|Label value|in the unit"


def kinds(node: dict[str, Any]) -> set[str]:
    """Types a field may have; those of a list or mapping are the types of what it holds."""
    found = {node["type"]} if "type" in node else set()
    inner = [*node.get("anyOf", ()), *node.get("prefixItems", ())]
    inner += [
        node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)
    ]
    return found.union(*(kinds(part) for part in inner))


def fields(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every field of a document and of the models in it, by "Model.field"."""
    models = {schema["title"]: schema, **schema["$defs"]}
    return [
        (f"{model}.{name}", node)
        for model, definition in models.items()
        for name, node in definition.get("properties", {}).items()
    ]


def described(node: dict[str, Any], models: Mapping[str, Any]) -> str:
    """A field's description; one that repeats its model's is left out of the schema."""
    if "description" in node or "$ref" not in node:
        return node.get("description", "")
    return models[node["$ref"].rsplit("/", 1)[1]].get("description", "")


def problems(name: str, node: dict[str, Any], models: Mapping[str, Any]) -> list[str]:
    """What a reader of the schema would not learn about a field."""
    text = described(node, models)
    if not text.strip():
        return [f"{name} has no description"]
    if not kinds(node) & {"number", "integer"}:
        return []
    unit = next((u for ending, u in UNITS.items() if name.endswith(ending)), None)
    wanted = re.escape(unit) if unit is not None else UNITLESS
    return [] if re.search(wanted, text) else [f"{name} does not say its unit: {text}"]


@pytest.mark.parametrize("document", list(SCHEMAS))
def test_every_field_is_described_with_its_unit(document):
    schema = SCHEMAS[document]
    found = fields(schema)
    assert len(found) > 40
    assert [p for name, node in found for p in problems(name, node, schema["$defs"])] == []


@pytest.mark.parametrize(("document", "file"), [("Measures", "measures"), ("Changes", "change")])
def test_the_committed_schema_is_the_models_own(document, file, capsys):
    committed = (ROOT / f"docs/{file}.schema.json").read_text()
    assert json.loads(committed) == SCHEMAS[document], "run `make schema`"
    assert cli.main(["schema", file]) == 0
    assert capsys.readouterr().out == committed


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("M.x", {"type": "string"}),
        ("M.length_mm", {"type": "number", "description": "Length."}),
        ("M.share", {"anyOf": [{"type": "number"}, {"type": "null"}], "description": "Share."}),
        ("M.d", {"additionalProperties": {"type": "number"}, "description": "Some numbers."}),
    ],
)
def test_the_check_finds_what_is_not_described(name, node):
    assert problems(name, node, {})


def test_the_schema_carries_its_version_and_refuses_another():
    for name, version in (("Measures", SCHEMA_VERSION), ("Changes", CHANGE_SCHEMA_VERSION)):
        assert SCHEMAS[name]["$id"].endswith(f":{version}")
        assert SCHEMAS[name]["properties"]["schema_version"]["const"] == version
    document = make_measures().model_dump(mode="json")
    assert Measures.model_validate(document)
    with pytest.raises(ValidationError, match=r"results of schema 0\.3"):
        Measures.model_validate({**document, "schema_version": "0.3"})
