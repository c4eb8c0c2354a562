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
        """A model from a layer of Keras, the list of its weights, or a file.

        Keras 2 and 3 are read. A file needs h5py (``pip install 'gru-c[keras]'``), not Keras or
        TensorFlow; docs/interop/keras.md has examples. A `GRU` is made with ``batch_first=True``,
        as Keras is, and in eval mode if it has dropout.

        Parameters
        ----------
        source : layer, list of arrays, or path
            - A built layer: ``GRU``, ``GRUCell``, ``RNN`` of a ``GRUCell`` or of several,
              ``Bidirectional`` of these with ``merge_mode="concat"``, ``CuDNNGRU``.
            - What its ``get_weights()`` gives: ``kernel`` (I, 3H), ``recurrent_kernel`` (H, 3H) and
              ``bias``, which is (2, 3H) where `reset_after` is True, (3H,) where it is False, and
              may be absent; twice for two directions. Options are keywords.
            - The path of a ``.keras``, ``.weights.h5`` or ``.h5`` file.
        layer : str, optional
            The layer of a file, by its name after those of the models that it is in:
            ``"encoder/gru"``, or ``"gru"`` if no other ends so. Not needed if there is one GRU.
        dtype : float32 or float64, optional
            That of the arrays if absent, and float32 for float16 and bfloat16.
        go_backwards : bool
            For weights without a configuration: the direction is reversed, and the model a
            `gru_c.gru.ReverseGRU`. It gives output at the step that it belongs to; Keras gives it
            in the order computed, ``output[:, ::-1]``.
        max_bytes : int
            Limit of the bytes of all arrays that a file declares, held before any is read.
        **options
            Other arguments of the model. They replace what a configuration says. Of weights without
            a configuration they are the defaults of a `GRU`, but `reset_after` is told by a bias.

        Raises
        ------
        ModelFileError
            The file is no file of Keras or is damaged, has no such layer, or several and `layer` is
            absent, or a layer with something that a GRU does not have. A ValueError, too.
        ValueError, TypeError
            The same of a layer or a list.
        MissingExtraError
            A file, and h5py is not installed.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> H, I = 4, 3
        >>> arrays = [np.ones((I, 3 * H)), np.ones((H, 3 * H)), np.zeros((2, 3 * H))]
        >>> gru_c.GRU.from_keras(arrays)
        GRU(3, 4, num_layers=1, bias=True, batch_first=True, dtype=float64, reset_after=True)
        >>> gru_c.GRU.from_keras(arrays[:2], reset_after=False, dtype=np.float32)
        GRU(3, 4, num_layers=1, bias=False, batch_first=True, dtype=float32, reset_after=False)
        >>> gru_c.GRU.from_keras(arrays + arrays).bidirectional
        True
        """
        from gru_c.interop import keras
        from gru_c.interop.found import build

        return build(cls, keras.read(source, layer, go_backwards, options, max_bytes), dtype,
                     **options)

    def to_keras(self) -> list[Any]:
        """The arrays for `set_weights` of a layer of Keras.

        The layer has the options of the model: `bias` as ``use_bias``, `reset_after`, and for
        `gru_c.gru.ReverseGRU` ``go_backwards=True``. The list does not hold them; a ``.keras`` file
        does, which `gru_c.interop.convert` writes.

        Returns
        -------
        list of ndarray
            ``kernel`` (I, 3H), ``recurrent_kernel`` (H, 3H) and ``bias``, gates in the order z, r,
            n; with two directions the same of the reverse one. The bias is (2, 3H), or with
            ``reset_after=False`` (3H,): the sum of both, which gives the same results.

        Raises
        ------
        ValueError
            The model has more than one layer.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> gru = gru_c.GRU(3, 4, rng=0)
        >>> [a.shape for a in gru.to_keras()]
        [(3, 12), (4, 12), (2, 12)]
        >>> again = gru_c.GRU.from_keras(gru.to_keras())
        >>> bool((again.weight_hh_l0 == gru.weight_hh_l0).all())
        True
        """
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
