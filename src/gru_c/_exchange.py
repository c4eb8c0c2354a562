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
        """A model from GRU nodes of ONNX.

        Needs the onnx package, ``pip install 'gru-c[onnx]'``. docs/interop/onnx.md has the tables
        of attributes and inputs, and what exporters write.

        Parameters
        ----------
        source : path-like or onnx.ModelProto
            External data must lie in the folder of the file.
        node : str, optional
            The name of a GRU node, or of one of its outputs; names of nodes that are the layers of
            one GRU, with ``", "`` between them. Not needed for a file with one GRU.
        linear_before_reset : 0 or 1, optional
            What all nodes are to have, whatever the file says. PyTorch's newer exporter wrote 0 for
            ``nn.GRU``, which is 1, with onnxscript 0.5.7 to 0.7.0.
        dtype : float32 or float64, optional
            Of the model; by default that of the file, and float32 for float16 and bfloat16.
        weights : mapping of str to array, optional
            Arrays by the names of inputs of the graph, where W (D, 3H, I), R (D, 3H, H) or
            B (D, 6H) are inputs.
        max_bytes : int
            The most that all arrays of the file may declare.
        **options
            Other arguments of the class, such as ``rng`` or ``batch_first``.

        Returns
        -------
        model
            Nodes of which one takes the output of another become layers. ``layout=1`` gives a
            model with ``batch_first=True``, ``direction="reverse"`` a `ReverseGRU`. The inputs
            sequence_lens and initial_h are arguments of each call, ``lengths`` and ``h_0``.

        Raises
        ------
        ModelFileError
            If the file is no ONNX model, is damaged, has no GRU node or several GRUs (the error
            lists them), has weights that are computed, or attributes that a GRU does not have, such
            as other activations for each direction.
        ValueError
            If `weights` has names that are not needed.
        MissingExtraError
            If onnx is not installed.
        OSError
            If the file cannot be read.

        Warns
        -----
        UserWarning
            If sequence_lens or initial_h are constants of the file, which the model does not keep,
            or if PyTorch wrote ``linear_before_reset=0``.

        References
        ----------
        https://onnx.ai/onnx/operators/onnx__GRU.html

        Examples
        --------
        >>> import numpy as np, onnx, gru_c
        >>> W = np.full((1, 3 * 4, 3), 0.1, np.float32)
        >>> R = np.full((1, 3 * 4, 4), 0.2, np.float32)
        >>> arrays = [onnx.numpy_helper.from_array(a, name) for name, a in (("W", W), ("R", R))]
        >>> nodes = [onnx.helper.make_node("GRU", ["X", "W", "R"], ["", "Y_h"], hidden_size=4)]
        >>> x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        ...         for name in ("X", "Y_h"))
        >>> graph = onnx.helper.make_graph(nodes, "example", [x], [y], arrays)
        >>> gru = gru_c.GRU.from_onnx(onnx.helper.make_model(graph))
        >>> gru.input_size, gru.hidden_size, gru.bias, gru.reset_after
        (3, 4, False, False)
        """
        from gru_c.interop import onnx
        from gru_c.interop.found import build

        return build(cls, onnx.read(source, node, linear_before_reset, weights, max_bytes), dtype,
                     **options)

    def to_onnx(self, path: Path, opset: int = 14, h_0: bool = False,
                lengths: bool = False) -> None:
        """Write an ONNX model: a GRU node for each layer, in the dtype of the model.

        Its input is ``input``, (steps, batch, I) or, with ``batch_first``, (batch, steps, I); its
        outputs are ``output`` and ``h_n``, as a call of the model returns them for a batch. Steps
        and batch may have any size. The file passes ``onnx.checker``; equal models give equal
        bytes. Needs the onnx package, ``pip install 'gru-c[onnx]'``.

        ONNX Runtime runs float32 alone: ONNX has float64, but its CPU kernels do not. It gives
        zeros as h_n of a row of no steps. What matters in training alone is not written: dropout of
        any kind, and ``checkpoint``.

        Parameters
        ----------
        path : path-like
            A file there is replaced as a whole.
        opset : int
            7 or newer, as far as the onnx package knows it.
        h_0 : bool
            Whether the first states are an input ``h_0``, (L*D, batch, H). Else they are zeros.
        lengths : bool
            Whether the steps that each row has are an input ``lengths``, int32 (batch,).

        Raises
        ------
        ValueError
            If ONNX cannot hold the model: a clip, alpha or beta that no float32 can, or parameters
            of 2 GiB.
        MissingExtraError
            If onnx is not installed.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import gru_c, onnx
        >>> gru = gru_c.GRU(3, 4, num_layers=2, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "gru.onnx")
        ...     gru.to_onnx(path)
        ...     model, again = onnx.load(path), gru_c.GRU.from_onnx(path)
        >>> [node.op_type for node in model.graph.node]
        ['GRU', 'Squeeze', 'GRU', 'Squeeze', 'Concat']
        >>> bool((again.weight_hh_l1 == gru.weight_hh_l1).all())
        True
        """
        from gru_c.interop import onnx
        from gru_c.interop.found import described

        onnx.write(described(self), path, opset, h_0, lengths)

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
