"""JSON from files that are not trusted."""

from __future__ import annotations

import json
from typing import Any

from gru_c.interop.errors import ModelFileError


def parse(text: str | bytes, where: str) -> Any:
    """The value of a text, UTF-8 if it is bytes. A ModelFileError names `where`."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode(),
                          object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:          # thousands of digits, too
        raise ModelFileError(f"{where}: not readable JSON ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} is there twice")
        found[name] = value
    return found
