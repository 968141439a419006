"""What the values of label maps made elsewhere mean: mapping files.

A mapping file is YAML:

    name: how it is called
    source: where its values are stated
    labels:
      value: [structure, left | right | null]
    ignored: [value, first-last, ...]

Structures are names of pipeline.core.anatomy; null says that the value does not tell the side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import MAPPING_FILE, ready_schemes
from pipeline.core.anatomy import OWN_SCHEME, LabelScheme, Side
from pipeline.core.errors import ConfigError, InputError, InvariantError

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")


def scheme_names() -> list[str]:
    """Names of the ready schemes."""
    return [OWN_SCHEME.name, *ready_schemes()]


def load_label_scheme(name_or_path: str) -> LabelScheme:
    """A ready scheme by name, or a mapping file by path.

    Raises:
        ConfigError: no such scheme, or a file that does not map labels.
    """
    if name_or_path == OWN_SCHEME.name:
        return OWN_SCHEME
    path = ready_schemes().get(name_or_path, Path(name_or_path))
    content = _read(path, name_or_path)
    try:
        if "versions" in content:
            newer = load_label_scheme(content["versions"]["newer"])
            return LabelScheme(str(content["name"]), newer.structures, newer.ignored)
        structures = {
            _whole(value): (str(name), None if side is None else Side(side))
            for value, (name, side) in content["labels"].items()
        }
        ignored = _values(content.get("ignored", ()))
        twice = structures.keys() & ignored
        if twice:
            raise ValueError(f"values both mapped and ignored: {sorted(twice)}")
        return LabelScheme(str(content.get("name", MAPPING_FILE)), structures, ignored)
    except (AttributeError, KeyError, TypeError, ValueError, InvariantError) as error:
        raise ConfigError(
            f"The mapping file {path.name} does not map labels",
            expected="labels: {value: [structure, left|right|null]}, ignored: [values]",
            found=f"missing key {error}" if isinstance(error, KeyError) else str(error),
            action="compare it with the ready mapping files of this package",
        ) from error


def settle_version(scheme: LabelScheme, values: Iterable[int]) -> LabelScheme:
    """The scheme of the version that made a label map, where versions of a tool differ.

    Args:
        scheme: as load_label_scheme gave it; most have one version and come back as they are.
        values: the label values that occur.

    Raises:
        InputError: the values mean different things in different versions, and nothing tells.
    """
    path = ready_schemes().get(scheme.name)
    versions = {} if path is None else _read(path, scheme.name).get("versions", {})
    if not versions:
        return scheme
    found = set(values)
    unclear = found & _values(versions["ambiguous"])
    if unclear and not found & _values(versions["told_by"]):
        raise InputError(
            f"The label map does not tell which version of {scheme.name} made it",
            expected=f"{versions['newer']} or {versions['older']}",
            found="values that mean different structures in the two: "
            + ", ".join(map(str, sorted(unclear))),
            action=f"name the version: --label-scheme {versions['newer']} or {versions['older']}",
        )
    return load_label_scheme(versions["newer"])


def _read(path: Path, asked: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "Unknown label scheme",
            expected=f"one of {', '.join(scheme_names())}, or the path of a mapping file",
            found=repr(asked),
            action="choose one of them with --label-scheme, or check the path",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The mapping file {path.name} is not YAML",
            expected="the keys labels and ignored",
            found=" ".join(str(error).split()),
            action="start from a copy of one in pipeline/io/schemes/",
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"The mapping file {path.name} does not map labels",
            expected="the keys labels and ignored",
            found=type(content).__name__,
            action="start from a copy of one in pipeline/io/schemes/",
        )
    return content


def _values(entries: Iterable[int | str]) -> frozenset[int]:
    """Values and ranges of values ("19-29", both ends counted)."""
    out: set[int] = set()
    for entry in entries:
        match = _RANGE.fullmatch(entry) if isinstance(entry, str) else None
        if match:
            out.update(range(int(match[1]), int(match[2]) + 1))
        else:
            out.add(_whole(entry))
    return frozenset(out)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a label value (a whole number)")
    return value
