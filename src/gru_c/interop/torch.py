"""PyTorch: modules, state dicts, and .pt files without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c.interop import state_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gru_c.interop.found import Found


def from_mapping(mapping: Mapping[str, Any], prefix: str, where: str) -> Found:
    """The GRU with that prefix."""
    return state_dict.read({name: np.asarray(a) for name, a in mapping.items()}, prefix, where)
