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
        """Write the model to a file of gru_c: parameters, options and metadata.

        Whoever reads `path` meanwhile sees the old file or all of the new one. The same model gives
        the same bytes. docs/interop/files.md has the layout.

        Parameters
        ----------
        path : path-like
            It ends in ``.npz``, which NumPy reads, too, or in ``.safetensors``, which needs the
            package safetensors. Replaced if it exists; a symbolic link stays and its target is
            replaced.
        metadata : mapping of str to str, optional
            Kept in the file, beside `metadata` of the model and in the place of its equal names.

        Raises
        ------
        ValueError
            If the suffix is another, a name of `metadata` is one of the format's own (``format``,
            ``format_version``, ``options``), or `load` could not read what would be written.
        TypeError
            If `metadata` holds anything but str.
        OSError
            If the file cannot be written: no room, say. What was there is left as it was.
        MissingExtraError
            If safetensors is not installed.

        Examples
        --------
        >>> import os, tempfile, gru_c
        >>> gru = gru_c.GRU(3, 4, batch_first=True, clip=5.0, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.npz")
        ...     gru.save(path, {"trained on": "digits"})
        ...     again = gru_c.GRU.load(path)
        >>> again.batch_first, again.clip, again.metadata
        (True, 5.0, {'trained on': 'digits'})
        >>> bool((again.weight_ih_l0 == gru.weight_ih_l0).all())
        True
        """
        from gru_c.cell import GRUCell
        from gru_c.interop import files
        from gru_c.interop.found import described

        files.write(described(self), path, metadata, isinstance(self, GRUCell))

    @classmethod
    def load(cls, path: Path, max_bytes: int = MAX_BYTES) -> Self:
        """Read a model that `save` wrote, with its options, its dtype and its `metadata`.

        What a file says is checked before a model is made, and nothing in it is executed. Which of
        the two formats it has is told by what is in it, not by its name. The model is in training
        mode as any new one, but one with dropout is in eval mode.

        Parameters
        ----------
        path : path-like
        max_bytes : int
            Most bytes of all arrays together. A file that declares more is refused before memory is
            taken.

        Returns
        -------
        GRU, ReverseGRU or GRUCell
            Of the class, but `GRU.load` gives a `ReverseGRU` if that is what was saved. A cell and
            a GRU of one layer read each other's files.

        Raises
        ------
        ModelFileError
            If the file is damaged, or is not one that `save` wrote.
        ValueError
            If it holds what the class cannot be: a `GRUCell` of two layers.
        OSError
            If the file cannot be read.
        MissingExtraError
            If it is a .safetensors file and safetensors is not installed.

        Examples
        --------
        >>> import os, tempfile, gru_c
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.npz")
        ...     gru_c.GRU(3, 4, num_layers=2, rng=0).save(path)
        ...     gru = gru_c.GRU.load(path)
        ...     try:
        ...         gru_c.GRUCell.load(path)
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(path))
        : num_layers=2, which a GRUCell does not have; read it with gru_c.GRU
        """
        from gru_c.interop import files
        from gru_c.interop.found import build

        found = files.read(path, max_bytes)
        model = build(cls, found)
        model.metadata = found.metadata
        return model
