"""What the values of label maps made elsewhere mean: mapping files."""

from __future__ import annotations

from pathlib import Path

import yaml

from pipeline.core.anatomy import OWN_SCHEME, LabelScheme, Side
from pipeline.core.errors import ConfigError, InvariantError

_FOLDER = Path(__file__).with_name("schemes")


def scheme_names() -> list[str]:
    """Names of the ready schemes."""
    return [OWN_SCHEME.name, *sorted(path.stem for path in _FOLDER.glob("*.yaml"))]


def load_label_scheme(name_or_path: str) -> LabelScheme:
    """A ready scheme by name, or a mapping file by path.

    A mapping file is YAML with `labels: {value: [structure, left|right|null]}` and optionally
    `ignored: [values]`; structures are names of pipeline.core.anatomy.

    Raises:
        ConfigError: no such scheme, or a file that does not map labels.
    """
    if name_or_path == OWN_SCHEME.name:
        return OWN_SCHEME
    path = _FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        path = Path(name_or_path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "Unknown label scheme",
            expected=f"one of {', '.join(scheme_names())}, or the path of a mapping file",
            found=repr(name_or_path),
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"The mapping file {path.name} is not YAML", found=" ".join(str(error).split())
        ) from error
    try:
        structures = {
            int(value): (str(name), None if side is None else Side(side))
            for value, (name, side) in content["labels"].items()
        }
        ignored = frozenset(int(value) for value in content.get("ignored", ()))
        return LabelScheme(path.stem, structures, ignored)
    except (AttributeError, KeyError, TypeError, ValueError, InvariantError) as error:
        raise ConfigError(
            f"The mapping file {path.name} does not map labels",
            expected="labels: {value: [structure, left|right|null]}, ignored: [values]",
            found=str(error),
            action="compare it with the ready mapping files of this package",
        ) from error
