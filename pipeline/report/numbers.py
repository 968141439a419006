"""Numbers in the page, each tied to its place in the results document."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from pydantic import BaseModel

from pipeline.report.format import MISSING, Style, show


class Numbers:
    """Shows numbers of one results document by their JSON pointer (RFC 6901).

    Every number of the page goes through here: the element carries the pointer and the raw
    value, so that a reader, a program or a test can hold the page against the JSON.
    """

    def __init__(self, document: BaseModel) -> None:
        self._document: dict[str, Any] = document.model_dump(mode="json")

    def value(self, pointer: str) -> Any:
        """What the document holds at a pointer, e.g. /measures/muscles/8/right/length_mm."""
        found: Any = self._document
        for part in pointer.removeprefix("/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found

    def text(self, pointer: str, style: str, *, unit: bool = False) -> str:
        """The number at a pointer as plain text; "n/a" where it is null."""
        return show(self.value(pointer), Style(style), unit=unit)

    def __call__(self, pointer: str, style: str, *, unit: bool = False) -> Markup:
        """The number at a pointer as an element with its raw value; "n/a" where it is null."""
        value = self.value(pointer)
        if value is None:
            return Markup('<span class="none">{}</span>').format(MISSING)
        return Markup(
            '<data class="n" value="{}" data-pointer="{}" data-style="{}">{}</data>'
        ).format(repr(value), pointer, style, show(value, Style(style), unit=unit))
