"""One thread for sums: the order in which they are added must not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import SimpleITK as sitk
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra and SimpleITK's filters in one thread; as a decorator or around a block.

    Both share out sums among the threads they are allowed, and rounding then differs in the last
    digits: a registration ended 1e-9 mm away with two threads. The process's own settings are put
    back; an onnxruntime session has threads of its own and gives the same with any number.
    """
    # A filter's own setting does not reach the filters inside it.
    process: Any = sitk.ProcessObject
    before = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        process.SetGlobalDefaultNumberOfThreads(before)
