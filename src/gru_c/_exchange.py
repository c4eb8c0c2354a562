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

    if TYPE_CHECKING:
        training: bool

    @classmethod
    def from_state_dict(cls, mapping: Mapping[str, Any], prefix: str = "",
                        dtype: DType | None = None, **options: Unpack[Options]) -> Self:
        """A model from parameters by PyTorch's names, which tell its sizes.

        Parameters
        ----------
        mapping : mapping of str to array
            ``weight_ih_l0`` (3H, I), ``weight_hh_l0`` (3H, H), and with biases ``bias_ih_l0`` and
            ``bias_hh_l0`` (3H,); ``..._l1`` (3H, D*H) and so on for more layers, with
            ``_reverse`` behind for a second direction. Of a cell: ``weight_ih``, ``weight_hh``,
            ``bias_ih``, ``bias_hh``. Gates are stacked r, z, n. The values are arrays of NumPy, or
            of any library with DLPack; they are copied.
        prefix : str
            What stands before these names, such as ``"encoder.gru."``; a dot at its end can be
            left out. Names that begin otherwise are not read.
        dtype : float32 or float64, optional
            Of the model; that of the arrays if absent, float32 for float16 and bfloat16.
        **options
            Other arguments of the class, such as ``batch_first=True``: names and shapes do not
            tell them.

        Returns
        -------
        GRU or GRUCell
            In training mode; with dropout, in eval mode.

        Raises
        ------
        ValueError
            A parameter is missing or has a wrong shape, there are other names with that prefix, or
            the parameters are those of an LSTM, say. The message lists what is there, and which
            prefixes have a GRU.
        TypeError
            `mapping` is no mapping, or an option is one that the parameters tell.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> arrays = {"gru.weight_ih_l0": np.ones((12, 3)), "gru.weight_hh_l0": np.ones((12, 4)),
        ...           "linear.weight": np.ones((2, 4))}
        >>> gru_c.GRU.from_state_dict(arrays, prefix="gru.", batch_first=True)
        GRU(3, 4, num_layers=1, bias=False, batch_first=True, dtype=float64, reset_after=True)
        """
        from gru_c.interop import torch
        from gru_c.interop.found import build

        return build(cls, torch.from_mapping(mapping, prefix, "the state dict"), dtype, **options)

    @classmethod
    def from_torch(cls, source: Any, prefix: str = "", dtype: DType | None = None,
                   key: str | None = None, max_bytes: int = MAX_BYTES,
                   **options: Unpack[Options]) -> Self:
        """A model from a module, a state dict or a file of PyTorch.

        A file is read without PyTorch, and nothing in it is executed: docs/interop/pytorch.md
        lists what is read.

        Parameters
        ----------
        source : torch.nn.Module, mapping, or path
            A ``torch.nn.GRU`` or ``GRUCell``, or a module that has one; a state dict, its tensors
            on any device; or a file that ``torch.save`` wrote, in the zip form or the one before
            PyTorch 1.6. A mapping and a file may be a checkpoint, which holds the state dict under
            another key.
        prefix : str
            Of the GRU in a larger model, such as ``"encoder.gru."``; a dot at its end can be left
            out.
        dtype : float32 or float64, optional
            Of the model; that of the parameters if absent, float32 for float16 and bfloat16.
        key : str, optional
            Of the state dict in a checkpoint, nested keys joined with dots. Needed where more than
            one mapping in it has a GRU with that prefix.
        max_bytes : int
            The most memory that the arrays of a file may take, as the file declares it.
        **options
            Other arguments of the class. A module tells all of its own; a state dict does not
            tell `batch_first` and `dropout`.

        Returns
        -------
        GRU or GRUCell
            In training mode; with dropout, in eval mode.

        Raises
        ------
        gru_c.interop.ModelFileError
            A subclass of ValueError: the file is damaged, none of ``torch.save``, declares too
            much, or holds something other than tensors, numbers and containers; or there is no
            GRU with that prefix. The message names the file and what was found.
        ValueError
            The same of a module or a mapping.
        TypeError
            `source` is none of these.
        OSError
            Of the file itself.

        Examples
        --------
        >>> import os, tempfile, gru_c
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "model.pt")
        ...     gru_c.GRU(3, 4, num_layers=2).to_torch(path=path)
        ...     gru_c.GRU.from_torch(path)
        GRU(3, 4, num_layers=2, bias=True, batch_first=False, dtype=float32, reset_after=True)
        """
        from gru_c.interop import torch
        from gru_c.interop.found import build

        return build(cls, torch.read(source, prefix, key, max_bytes), dtype, **options)

    def to_torch(self, module: bool = False, path: Path | None = None) -> Any:
        """The parameters for PyTorch: a state dict, a module, or a file.

        Parameters
        ----------
        module : bool
            Make a ``torch.nn.GRU`` or ``GRUCell`` with the options and the mode of the model;
            PyTorch must be installed.
        path : str, bytes or os.PathLike, optional
            Write the state dict to this file, without PyTorch. ``torch.load`` reads it, and the
            same parameters give the same bytes. A file that was there is replaced as a whole.

        Returns
        -------
        collections.OrderedDict, torch.nn.Module or None
            A state dict holds copies: tensors where PyTorch is installed, else arrays. None with
            `path`.

        Raises
        ------
        ValueError
            The model computes what PyTorch's GRU does not: ``reset_after=False``, another
            activation, a clip, a lone reverse direction; of a module also `input_dropout` and
            `recurrent_dropout`. The message names the option.
        TypeError
            Both `module` and `path` are given.
        ImportError
            `module` is True and PyTorch is not installed.
        OSError
            Of the file.

        Examples
        --------
        >>> import gru_c
        >>> list(gru_c.GRU(3, 4).to_torch())
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
        """
        from gru_c.interop import torch
        from gru_c.interop.found import described

        if path is not None:
            if module:
                raise TypeError("a module cannot be written to a file: give module or path")
            return torch.write(described(self), path)
        if module:
            return torch.as_module(described(self)).train(self.training)
        return torch.as_state_dict(described(self))

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
