"""The embedded network: its weights, their contract, and the session that runs it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pipeline.core.anatomy import LEG_SCHEME
from pipeline.core.errors import InputError

Singles = NDArray[np.float32]

_GPU = "CUDAExecutionProvider"
WEIGHTS = Path(__file__).with_name("weights") / "legs.onnx"


@dataclass(frozen=True)
class Contract:
    """What the network takes and gives; stands beside the weights.

    Attributes:
        version: of the weights.
        digest: sha256 of the weights file.
        class_ids: id of LEG_SCHEME of each output channel; 0 is background and comes first.
        pixel_mm: size of the pixels in the plane.
        near_mm, far_mm: distance of the neighbouring slices seen besides the slice itself.
        size_multiple: rows and columns of the input are a multiple of this.
    """

    version: str
    digest: str
    class_ids: tuple[int, ...]
    pixel_mm: float
    near_mm: float
    far_mm: float
    size_multiple: int


class Network(Protocol):
    """Anything that turns slices with their neighbours into probabilities."""

    @property
    def contract(self) -> Contract:
        """What it takes and gives."""
        ...

    def predict(self, slices: Singles) -> Singles:
        """Probabilities (n, class, row, column) of slices (n, 10, row, column)."""
        ...


class OnnxNetwork:
    """The network of a weights file, run by onnxruntime.

    The session is made at the first prediction. Its threads are its own: the process's settings
    stay as they are.
    """

    def __init__(self, weights: Path, contract: Contract, threads: int) -> None:
        self._weights = weights
        self._contract = contract
        self._threads = threads
        self._session: onnxruntime.InferenceSession | None = None

    @property
    def contract(self) -> Contract:
        return self._contract

    def predict(self, slices: Singles) -> Singles:
        if self._session is None:
            self._session = self._start()
        (probabilities,) = self._session.run(None, {"slices": slices})
        return np.asarray(probabilities, dtype=np.float32)

    def _start(self) -> onnxruntime.InferenceSession:
        content = self._weights.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != self._contract.digest:
            raise _broken(
                f"The weights file {self._weights.name} is not the one its contract speaks of",
                expected=f"sha256 {self._contract.digest}",
                found=f"sha256 {found}",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Threads that wait without spinning leave the processor to other subjects.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(content, options, providers=providers())


def providers() -> list[str]:
    """What runs the network here, the fastest first. A GPU rounds otherwise than a processor."""
    there = onnxruntime.get_available_providers()
    return [name for name in (_GPU, "CPUExecutionProvider") if name in there]


def on_gpu() -> bool:
    """Whether the network is run by a GPU."""
    return _GPU in providers()


def allocated_threads(environment: Mapping[str, str] | None = None) -> int:
    """Threads this process was given: by the scheduler, by the user, else all it may run on.

    Args:
        environment: variables to look at; None: those of the process.
    """
    variables = os.environ if environment is None else environment
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        text = variables.get(name, "").split(",")[0].strip()
        if text.isdecimal() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_contract(weights: Path) -> Contract:
    """The contract beside a weights file.

    Raises:
        InputError: weights or contract are missing, or the contract cannot be understood.
    """
    path = weights.with_suffix(".json")
    if not weights.is_file() or not path.is_file():
        raise _broken(
            "The weights of the embedded network are not installed",
            expected=f"{weights.name} and {path.name} in the package",
            found="one of them is missing",
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        contract = Contract(
            version=str(values["version"]),
            digest=str(values["sha256"]),
            class_ids=tuple(int(v) for v in values["class_ids"]),
            pixel_mm=float(values["pixel_mm"]),
            near_mm=float(values["near_mm"]),
            far_mm=float(values["far_mm"]),
            size_multiple=int(values["size_multiple"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(
            f"The contract {path.name} of the embedded network cannot be understood",
            expected="version, sha256, class_ids, pixel_mm, near_mm, far_mm, size_multiple",
            found=f"{type(error).__name__}: {error}",
        ) from error
    ids = contract.class_ids
    if not ids or ids[0] != 0 or any(v not in LEG_SCHEME.structures for v in ids[1:]):
        raise _broken(
            f"The contract {path.name} names classes outside the vocabulary",
            expected="0, then ids of muscles and bones",
            found=", ".join(map(str, ids)),
        )
    return contract


@cache
def embedded_network() -> OnnxNetwork:
    """The network of the package, once per process.

    Raises:
        InputError: see read_contract.
    """
    return OnnxNetwork(WEIGHTS, read_contract(WEIGHTS), allocated_threads())


def _broken(problem: str, *, expected: str, found: str) -> InputError:
    return InputError(
        problem, expected=expected, found=found, action="install the package again, unchanged"
    )
