"""Digests (sha256, hexadecimal) of what a result was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def file_digest(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_digest(paths: Sequence[Path]) -> str:
    """Digest of the contents of several files, whatever their names and order."""
    return text_digest(" ".join(sorted(file_digest(path) for path in paths)))


def text_digest(text: str) -> str:
    """Digest of a text."""
    return bytes_digest(text.encode("utf-8"))


def bytes_digest(content: bytes) -> str:
    """Digest of the content of a file that was read."""
    return hashlib.sha256(content).hexdigest()
