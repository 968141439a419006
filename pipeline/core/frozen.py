"""Values that nothing changes, and whose copies nothing changes either."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that refuses every change with a TypeError.

    Unlike a view (mappingproxy) it can be pickled and deep-copied, so that what the stages hand on
    can be cached, or sent to another process. `|` gives a plain dict.
    """

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} cannot be changed; dict(...) makes a copy")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class Checked:
    """Base of dataclasses whose copies pass through the constructor, as the original did.

    Arrays come back writable out of a pickle or a deep copy; the constructor makes them read-only
    again.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))
