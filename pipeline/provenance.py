"""What ran on what: digests of code, configuration and inputs, versions of libraries."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.config import MAPPING_FILE, Config, ready_schemes
from pipeline.core.anatomy import OWN_SCHEME
from pipeline.core.results import Provenance

DISTRIBUTION = "myosymmetry"
_LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-image",
    "onnxruntime",
    "SimpleITK",
    "nibabel",
    "pydicom",
    "pydantic",
)
#: Files of the package that decide its results; pictures and templates do not.
_CODE_SUFFIXES = (".py", ".yaml", ".onnx")


def digest_of(value: Any) -> str:
    """sha256 of a JSON-like value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def digest_of_document(document: BaseModel) -> str:
    """sha256 of a published document, whatever the layout of its file."""
    return digest_of(document.model_dump(mode="json"))


@cache
def code_digest() -> str:
    """sha256 over the package's source and data files, by relative name."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    files = sorted(p for p in root.rglob("*") if p.suffix in _CODE_SUFFIXES)
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode("utf-8"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def version_of(distribution: str) -> str:
    """Installed version of a distribution, or "not installed"."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def stage_key(stage: str, *, section: Any, upstream: Mapping[str, str]) -> str:
    """Digest that changes whenever the saved result of a stage must not be reused.

    Args:
        stage: name of the stage.
        section: its configuration, as JSON-like values.
        upstream: digests of everything the stage works on.
    """
    parts = {"stage": stage, "code": code_digest(), "section": section, "upstream": upstream}
    return digest_of(parts)


def provenance(config: Config, inputs: Mapping[str, str]) -> Provenance:
    """The record that goes into every result. It holds no clock: a rerun gives the same."""
    # How a group is summed up does not touch the results of one subject.
    dumped = config.model_dump(mode="json", by_alias=True, exclude={"group"})
    # A path may name a person; what the file says is among the inputs.
    if config.segment.label_scheme not in (OWN_SCHEME.name, *ready_schemes()):
        dumped["segment"]["label_scheme"] = MAPPING_FILE
    return Provenance(
        software=DISTRIBUTION,
        software_version=version_of(DISTRIBUTION),
        code_digest=code_digest(),
        python_version=platform.python_version(),
        libraries={name: version_of(name) for name in _LIBRARIES},
        configuration_digest=digest_of(dumped),
        configuration=dumped,
        inputs=dict(inputs),
    )
