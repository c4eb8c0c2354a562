"""Class methods of GRU and GRUCell that read and write models; `gru_c.interop` does the work.

It is imported when one of them is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import TypeAlias, Unpack

    from gru_c._types import DType, Options

    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MAX_BYTES = 2**32                                          # of the arrays that a file declares


class Exchange:
    """Base class of `Module`."""

    @classmethod
    def from_state_dict(cls, mapping: Mapping[str, Any], prefix: str = "",
                        dtype: DType | None = None, **options: Unpack[Options]) -> Self:
        """A model from parameters by PyTorch's names."""
        from gru_c.interop import torch
        from gru_c.interop.found import build

        return build(cls, torch.from_mapping(mapping, prefix, "state_dict"), dtype, **options)

    @classmethod
    def from_torch(cls, source: Any, prefix: str = "", dtype: DType | None = None,
                   key: str | None = None, max_bytes: int = MAX_BYTES,
                   **options: Unpack[Options]) -> Self:
        """A model from a module, a state dict or a file of PyTorch."""
        from gru_c.interop import torch
        from gru_c.interop.found import build

        return build(cls, torch.read(source, prefix, key, max_bytes), dtype, **options)

    def to_torch(self, module: bool = False) -> Any:
        """The parameters as a state dict of PyTorch, or a module."""
        from gru_c.interop import torch
        from gru_c.interop.found import described

        return torch.as_module(described(self)) if module else torch.as_state_dict(described(self))

    @classmethod
    def from_keras(cls, source: Any, layer: str | None = None, dtype: DType | None = None,
                   go_backwards: bool = False, max_bytes: int = MAX_BYTES,
                   **options: Unpack[Options]) -> Self:
        """A model from a layer of Keras, its weights, or a file."""
        from gru_c.interop import keras
        from gru_c.interop.found import build

        return build(cls, keras.read(source, layer, go_backwards, options, max_bytes), dtype,
                     **options)

    def to_keras(self) -> list[Any]:
        """The arrays for `set_weights` of a layer of Keras."""
        from gru_c.interop import keras
        from gru_c.interop.found import described

        return keras.weights(described(self))

    @classmethod
    def from_onnx(cls, source: Any, node: str | None = None,
                  linear_before_reset: int | None = None, dtype: DType | None = None,
                  weights: Mapping[str, Any] | None = None, max_bytes: int = MAX_BYTES,
                  **options: Unpack[Options]) -> Self:
        """A model from GRU nodes of ONNX."""
        from gru_c.interop import onnx
        from gru_c.interop.found import build

        return build(cls, onnx.read(source, node, linear_before_reset, weights, max_bytes), dtype,
                     **options)

    def to_onnx(self, path: Path, opset: int = 14) -> None:
        """Write an ONNX model."""
        from gru_c.interop import onnx
        from gru_c.interop.found import described

        onnx.write(described(self), path, opset)

    # from_gates, from_flax, from_equinox, from_rtneural, to_rtneural: here

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model to a file."""
        from gru_c.interop import files
        from gru_c.interop.found import described

        files.write(described(self), path, metadata)

    @classmethod
    def load(cls, path: Path, max_bytes: int = MAX_BYTES) -> Self:
        """Read a model that `save` wrote."""
        from gru_c.interop import files
        from gru_c.interop.found import build

        found = files.read(path, max_bytes)
        model = build(cls, found)
        model.metadata = found.metadata
        return model
