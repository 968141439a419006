"""One thread for sums: the order in which they are added must not depend on the machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import SimpleITK as sitk
from threadpoolctl import threadpool_limits


class _Shared:
    """Blocks of several Python threads that want one thread for sums, which the process has once.

    The first one in changes its settings, the last one out puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._undo.enter_context(_limited())
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._undo.close()


_shared = _Shared()


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra and SimpleITK's filters in one thread; as a decorator or around a block.

    Both share out sums among the threads they are allowed, and rounding then differs in the last
    digits: a registration ended 1e-9 mm away with two threads. The process's own settings are put
    back once no block is left in any Python thread; an onnxruntime session has threads of its own
    and gives the same with any number.
    """
    _shared.enter()
    try:
        yield
    finally:
        _shared.leave()


@contextmanager
def _limited() -> Iterator[None]:
    # A filter's own setting does not reach the filters inside it.
    process: Any = sitk.ProcessObject
    before = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(before)
