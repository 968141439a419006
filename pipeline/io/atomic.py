"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.core.errors import UsageError

_ADVICE = {
    errno.ENOSPC: "free some space or choose another output folder",
    errno.EDQUOT: "free some space or choose another output folder",
    errno.EFBIG: "raise the limit on file sizes or choose another output folder",
    errno.EACCES: "choose another output folder or change its permissions",
    errno.EPERM: "choose another output folder or change its permissions",
    errno.EROFS: "choose an output folder on a file system that can be written",
}


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file in the same folder, then put it in the place of `path`.

    Raises:
        UsageError: the file cannot be written (disk full, no permission); the temporary file is
            removed and an older file at `path` stays as it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        if error.filename is not None and Path(error.filename).parent != path.parent:
            # Not of this file: something that the caller reads meanwhile.
            raise
        raise UsageError(
            f"{path.name} cannot be written",
            expected="an output folder with permission and space to write",
            found=error.strerror or str(error),
            action=_ADVICE.get(error.errno or 0, "check the output folder"),
            private=str(path.parent),
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
