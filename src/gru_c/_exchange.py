"""Class methods of GRU and GRUCell that read and write models; `gru_c.interop` does the work.

It is imported when one of them is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Literal, TypeAlias, Unpack

    from gru_c._types import DType, Options, OptionsOfEquations

    Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

MAX_BYTES = 2**32                                          # of the arrays that a file declares


class Exchange:
    """Base class of `Module`."""

    if TYPE_CHECKING:
        metadata: dict[str, str]
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
            PyTorch 1.6, or a state dict as ``.safetensors``. A mapping and a file may be a
            checkpoint, which holds the state dict under another key.
        prefix : str
            Of the GRU in a larger model, such as ``"encoder.gru."``; a dot at its end can be left
            out.
        dtype : float32 or float64, optional
            Of the model; that of the parameters if absent, float32 for float16 and bfloat16.
        key : str, optional
            Of the state dict in a checkpoint, nested keys joined with dots. Needed where more than
            one mapping in it has a GRU with that prefix.
        max_bytes : int
            The most bytes that the arrays of a file together may declare, checked before any is
            read.
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
            A subclass of ValueError. The file is damaged, was not written by ``torch.save`` or
            safetensors, declares too much, or holds something other than tensors, numbers and
            containers; or there is no GRU with that prefix. The message names the file and what was
            found.
        MissingExtraError
            It is a .safetensors file, and the package safetensors is not installed.
        ValueError
            A module or a mapping has no such GRU.
        TypeError
            `source` is none of these.
        OSError
            The file cannot be read.

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
        from gru_c.interop.formats import only
        from gru_c.interop.found import build

        with only("from_torch", source, max_bytes):
            found = torch.read(source, prefix, key, max_bytes)
        return build(cls, found, dtype, **options)

    def to_torch(self, module: bool = False, path: Path | None = None) -> Any:
        """The parameters for PyTorch: a state dict, a module, or a file.

        Those of a quantized model are the values that it computes with, in float32.

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
            The file cannot be written.

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
        """A model from a layer of Keras, the list of its weights, or a file.

        Keras 2 and 3 are read. A file needs h5py (``pip install 'gru-c[keras]'``), not Keras or
        TensorFlow; docs/interop/keras.md has examples.

        Parameters
        ----------
        source : layer, list of arrays, or path
            - A built layer: ``GRU``, ``GRUCell``, ``RNN`` of one ``GRUCell`` or of several,
              ``Bidirectional`` of these with ``merge_mode="concat"``, ``CuDNNGRU``.
            - What its ``get_weights()`` gives: ``kernel`` (I, 3H), ``recurrent_kernel`` (H, 3H) and
              perhaps ``bias``, which is (2, 3H) with `reset_after` and (3H,) without; the same
              twice for two directions. Options are keywords.
            - The path of a ``.keras``, ``.weights.h5`` or ``.h5`` file.
        layer : str, optional
            The layer of a file: its name after the names of the models that it is in,
            ``"encoder/gru"``, or ``"gru"`` if no other name ends with it. Not needed if there is
            one GRU, or if a Sequential holds nothing but GRUs: they are the layers of one model.
        dtype : float32 or float64, optional
            Of the model; that of the arrays if absent, float32 for float16 and bfloat16.
        go_backwards : bool
            Whether weights without a configuration are those of a layer with
            ``go_backwards=True``.
        max_bytes : int
            The most bytes that the arrays of a file together may declare, checked before any is
            read.
        **options
            Other arguments of the class, which replace those of a configuration. Weights without a
            configuration do not tell them, but a bias tells `reset_after`.

        Returns
        -------
        GRU, ReverseGRU or GRUCell
            With ``batch_first=True``, as Keras has it; in training mode, or with dropout in eval
            mode. ``go_backwards=True`` gives a `gru_c.ReverseGRU`. Its output is at the step that
            it belongs to; Keras gives it in the order computed, ``output[:, ::-1]``.

        Raises
        ------
        ModelFileError
            A subclass of ValueError. The file is not one of Keras or is damaged, has no such layer,
            or several and `layer` is absent, or a layer with something that a GRU does not have.
        ValueError, TypeError
            A layer or a list is not one of these.
        MissingExtraError
            `source` is a file, and h5py is not installed.
        OSError
            The file cannot be read.

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
        from gru_c.interop.formats import only
        from gru_c.interop.found import build

        with only("from_keras", source, max_bytes):
            found = keras.read(source, layer, go_backwards, options, max_bytes)
        return build(cls, found, dtype, **options)

    def to_keras(self) -> list[Any]:
        """The arrays for `set_weights` of a layer of Keras.

        The layer has the options of the model: `bias` as ``use_bias``, `reset_after`, and for
        `gru_c.ReverseGRU` ``go_backwards=True``. The list does not hold them; a ``.keras`` file
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
            The model has more than one layer, a clip, or an activation that Keras does not have.

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
        """A model from GRU nodes of ONNX.

        Needs the onnx package, ``pip install 'gru-c[onnx]'``. docs/interop/onnx.md has the tables
        of attributes and inputs, and what exporters write.

        Parameters
        ----------
        source : path-like or onnx.ModelProto
            External data must lie in the folder of the file.
        node : str, optional
            The name of a GRU node, or of one of its outputs; or the names of nodes that are the
            layers of one GRU, with ``", "`` between them. Not needed for a file with one GRU.
        linear_before_reset : 0 or 1, optional
            Of all nodes, whatever the file says. With onnxscript 0.5.7 to 0.7.0, PyTorch's newer
            exporter wrote 0 for ``nn.GRU``, which computes 1.
        dtype : float32 or float64, optional
            Of the model; that of the file if absent, float32 for float16 and bfloat16.
        weights : mapping of str to array, optional
            Where W (D, 3H, I), R (D, 3H, H) or B (D, 6H) are inputs of the graph: arrays by the
            names of these inputs.
        max_bytes : int
            The most bytes that the arrays of the file together may declare, checked before any is
            read.
        **options
            Other arguments of the class, such as ``rng`` or ``batch_first``.

        Returns
        -------
        GRU, ReverseGRU or GRUCell
            Nodes of which one takes the output of another become layers. ``layout=1`` gives a
            model with ``batch_first=True``, ``direction="reverse"`` a `gru_c.ReverseGRU`. The
            inputs sequence_lens and initial_h are arguments of each call, ``lengths`` and ``h_0``.

        Raises
        ------
        ModelFileError
            If the file is not an ONNX model, is damaged, has no GRU node or several GRUs (the error
            lists them), has weights that are computed, or attributes that a GRU does not have, such
            as different activations for the two directions.
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
        from gru_c.interop.formats import only
        from gru_c.interop.found import build

        if linear_before_reset is not None and "reset_after" in options:
            raise TypeError("linear_before_reset and reset_after are one option: give one of them")
        with only("from_onnx", source, max_bytes):
            found = onnx.read(source, node, linear_before_reset, weights, max_bytes)
        return build(cls, found, dtype, **options)

    def to_onnx(self, path: Path, opset: int = 14, h_0: bool = False,
                lengths: bool = False) -> None:
        """Write an ONNX model: a GRU node for each layer, in the dtype of the model.

        Its input is ``input``, (steps, batch, I) or, with ``batch_first``, (batch, steps, I); its
        outputs are ``output`` and ``h_n``, as a call of the model returns them for a batch. Steps
        and batch may have any size. The file passes ``onnx.checker``; equal models give equal
        bytes. Needs the onnx package, ``pip install 'gru-c[onnx]'``.

        ONNX Runtime runs only float32 models: ONNX has float64, but its CPU kernels do not. For a
        row of no steps it gives zeros as h_n, not ``h_0``. What matters only in training is not
        written: dropout of any kind, and ``checkpoint``. Those of a quantized model are the weights
        that it computes with, in float32: ONNX does not round x and h.

        Parameters
        ----------
        path : path-like
            A file there is replaced as a whole.
        opset : int
            7 or newer, as far as the onnx package knows it.
        h_0 : bool
            Whether there is an input ``h_0`` (L*D, batch, H); otherwise the first states are zeros.
        lengths : bool
            Whether there is an input ``lengths`` (batch,) of int32; otherwise each row has all
            steps.

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

    @classmethod
    def from_gates(cls, gates: Any, *, product: Literal["W x", "x W"], reset_after: bool,
                   z_times: Literal["h", "n"],
                   concatenated: Literal["x h", "h x"] | None = None, dtype: DType | None = None,
                   **options: Unpack[OptionsOfEquations]) -> Self:
        """A model from the matrices of a GRU that was written by hand.

        The options say how its equations are written: matrices alone do not tell, and most wrong
        choices still run. docs/interop/by-hand.md has examples, docs/conventions.md says what
        others use.

        Parameters
        ----------
        gates : mapping of str to tuple of arrays, tuple or list
            One direction of one layer. Keys name the reset gate r, the update gate z and the new
            gate n, alone, or stacked in the order of the arrays: ``"zrn"``, or ``"rz"`` and
            ``"n"``. Of k gates, a value is

            - ``(W, U)``, ``(W, U, b)`` or ``(W, U, b_i, b_h)``: the matrix of x, the matrix of h,
              one bias, or a bias beside ``W x`` and one beside ``U h``; (k H, I), (k H, H) and
              (k H,) arrays. None stands for a bias that is not there.
            - With `concatenated`, ``(W,)``, ``(W, b)`` or ``(W, b_i, b_h)``: one matrix of x and h,
              (k H, I + H).

            A tuple of two mappings is the forward and the reverse direction of a layer. A list has
            layers, lowest first.
        product : "W x" or "x W"
            With ``"x W"``, matrices are (I, k H), (H, k H) and (I + H, k H).
        reset_after : bool
            True: ``n = tanh(W x + b_i + r * (U h + b_h))``; False:
            ``n = tanh(W x + b_i + U (r * h) + b_h)``, and so is any Linear on ``[x, r * h]``.
            With True, a single bias of n is ``(W, U, b, None)`` or ``(W, U, None, b)``, which says
            where it stands.
        z_times : "h" or "n"
            What the update gate multiplies: ``h' = z * h + (1 - z) * n``, or
            ``h' = (1 - z) * h + z * n``. With ``"n"``, the weights and biases of z change their
            signs, since ``1 - sigmoid(a) = sigmoid(-a)``.
        concatenated : "x h" or "h x", optional
            Whether one matrix multiplies ``[x, h]`` or ``[h, x]``.
        dtype : float32 or float64, optional
            Of the model. By default float64 if one of the arrays is, else float32.
        **options
            Other arguments of the class: activations, ``batch_first``, ``rng``, ...

        Returns
        -------
        GRU or GRUCell
            Of the class that the method is called on. With z_times="h" its parameters are those
            given; a bias that only some gates have is zero for the others.

        Raises
        ------
        TypeError
            `gates` holds something other than mappings of tuples.
        ValueError
            Gates, shapes or options do not fit together; or z_times="n" with a
            `recurrent_activation` f that has no ``f(-a) = 1 - f(a)``.

        Examples
        --------
        Cho et al. 2014 (arXiv:1406.1078), as ``W @ x``:

        >>> import numpy as np, gru_c
        >>> rng = np.random.default_rng(0)
        >>> W_r, W_z, W_n = rng.standard_normal((3, 4, 2))
        >>> U_r, U_z, U_n = rng.standard_normal((3, 4, 4))
        >>> gru = gru_c.GRU.from_gates(
        ...     {"r": (W_r, U_r), "z": (W_z, U_z), "n": (W_n, U_n)},
        ...     product="W x", reset_after=False, z_times="h")
        >>> gru
        GRU(2, 4, num_layers=1, bias=False, batch_first=False, dtype=float64, reset_after=False)
        """
        from gru_c.interop import gates as by_hand
        from gru_c.interop.found import build

        form = by_hand.Form(product, reset_after, z_times, concatenated)
        return build(cls, by_hand.read(gates, form, options), dtype, **options)

    @classmethod
    def from_flax(cls, source: Any, path: str = "", dtype: DType | None = None,
                  **options: Unpack[OptionsOfEquations]) -> Self:
        """A model from the parameters of GRU cells of Flax, ``linen.GRUCell`` or ``nnx.GRUCell``.

        Flax is not needed.

        Parameters
        ----------
        source : mapping, tuple or list
            A tree of parameters that holds one cell, or has one below `path`: dicts, a FrozenDict
            or a State, nested or flat, of arrays or anything that converts to one. A tuple of two
            trees is the forward and the reverse direction of a layer, a list has layers, lowest
            first.
        path : str
            Where the cell is: keys with ``"/"`` between them.
        dtype : float32 or float64, optional
            Of the model. By default float64 if one of the arrays is, else float32.
        **options
            Other arguments of the class: activations, if they are not the defaults,
            ``batch_first=True`` for the layout of ``RNN``, ...

        Returns
        -------
        GRU or GRUCell
            Of the class that the method is called on. A bias that Flax does not have is zero.

        Raises
        ------
        TypeError
            `source` holds something other than mappings.
        ValueError
            There is no cell, or several: the message lists where they are. Or a cell has missing or
            unexpected leaves, or shapes that do not fit.

        Notes
        -----
        The equations are those of ``flax.linen.GRUCell`` and ``flax.nnx.GRUCell``, whose parameters
        differ in the number of biases alone.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> tree = {"dense_i": {"kernel": np.ones((2, 12)), "bias": np.zeros(12)},
        ...         "dense_h": {"kernel": np.ones((4, 12))}}
        >>> gru_c.GRU.from_flax({"encoder": {"cell": tree}}, batch_first=True)
        GRU(2, 4, num_layers=1, bias=True, batch_first=True, dtype=float64, reset_after=True)
        """
        from gru_c.interop import flax
        from gru_c.interop.found import build

        return build(cls, flax.read(source, path), dtype, reset_after=True,
                     **options)

    def to_flax(self) -> Any:
        """The parameters as trees of ``flax.linen.GRUCell``, for ``{"params": ...}`` of a cell.

        Returns
        -------
        dict, tuple or list
            For one layer and direction ``{"ir": {"kernel": ..., "bias": ...}, ...}``; trees of more
            are arranged as `from_flax` takes them. r and z have one bias, which is the sum of ours;
            the biases of a model without are zeros. Dropout and `batch_first` are no part of it.

        Raises
        ------
        ValueError
            An option that a tree does not hold; the message names it.

        Examples
        --------
        >>> import gru_c
        >>> sorted(gru_c.GRUCell(2, 4).to_flax())
        ['hn', 'hr', 'hz', 'in', 'ir', 'iz']
        """
        from gru_c.interop import flax
        from gru_c.interop.found import described

        return flax.tree(described(self))

    @classmethod
    def from_equinox(cls, source: Any, dtype: DType | None = None,
                     **options: Unpack[OptionsOfEquations]) -> Self:
        """A model from an ``equinox.nn.GRUCell``, or from its arrays.

        Equinox is not needed for arrays.

        Parameters
        ----------
        source : cell, mapping, tuple or list
            A cell, or a mapping with its arrays weight_ih (3H, I), weight_hh (3H, H), bias (3H,)
            and bias_n (H,); the biases may be None or not there. A tuple of two is the forward and
            the reverse direction of a layer, a list has layers, lowest first.
        dtype : float32 or float64, optional
            Of the model. By default float64 if one of the arrays is, else float32.
        **options
            Other arguments of the class: ``batch_first``, ``rng``, ...

        Returns
        -------
        GRU or GRUCell
            Of the class that the method is called on.

        Raises
        ------
        ValueError
            Names are missing or unknown, or shapes do not fit.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> arrays = {"weight_ih": np.ones((12, 2)), "weight_hh": np.ones((12, 4))}
        >>> gru_c.GRUCell.from_equinox(arrays)
        GRUCell(2, 4, bias=False, dtype=float64, reset_after=True)
        """
        from gru_c.interop import equinox
        from gru_c.interop.found import build

        return build(cls, equinox.read(source), dtype, reset_after=True,
                     **options)

    def to_equinox(self) -> Any:
        """The parameters as arrays of ``equinox.nn.GRUCell`` by name.

        Returns
        -------
        dict, tuple or list
            weight_ih, weight_hh, bias and bias_n of one layer and direction, the biases None in a
            model without; those of more are arranged as `from_equinox` takes them. r and z have one
            bias, which is the sum of ours. Dropout and `batch_first` are no part of it.

        Raises
        ------
        ValueError
            An option that the cell does not have; the message names it.

        Examples
        --------
        >>> import gru_c
        >>> {name: a.shape for name, a in gru_c.GRUCell(2, 4).to_equinox().items()}
        {'weight_ih': (12, 2), 'weight_hh': (12, 4), 'bias': (12,), 'bias_n': (4,)}
        """
        from gru_c.interop import equinox
        from gru_c.interop.found import described

        return equinox.arrays(described(self))

    @classmethod
    def from_rtneural(cls, source: Path | Mapping[str, Any],
                      layer: int | str | Sequence[int] | None = None, dtype: DType | None = None,
                      max_bytes: int = MAX_BYTES, **options: Unpack[OptionsOfEquations]) -> Self:
        """A model from a GRU of a JSON file of RTNeural.

        Parameters
        ----------
        source : path or mapping
            A file, or what one holds: ``{"layers": [...]}`` as ``python/model_utils.py`` of
            RTNeural writes it, or a state dict of PyTorch, also under the key ``state_dict``.
        layer : int, list of int or str, optional
            Which GRU, if there are several: its index in ``"layers"``, or the indices of GRUs that
            follow one another, as layers of one model; in a state dict the prefix of its names.
        dtype : float32 or float64, optional
            Of the model. By default float32 if all numbers of the file are numbers of float32, as
            those of a float32 model are, else float64.
        max_bytes : int
            The most bytes that the file and its numbers may take.
        **options
            Other arguments of the class: ``batch_first``, ``rng``, ...

        Returns
        -------
        GRU or GRUCell
            Of the class that the method is called on.

        Raises
        ------
        ModelFileError
            The file is no such JSON, or none that RTNeural could load.
        ValueError
            The mapping is none of these.
        OSError
            The file cannot be read.

        Examples
        --------
        >>> import numpy as np, gru_c
        >>> weights = [np.ones((1, 12)), np.ones((4, 12)), np.zeros((2, 12))]
        >>> gru_c.GRU.from_rtneural({"layers": [
        ...     {"type": "gru", "shape": [None, None, 4], "weights": weights},
        ...     {"type": "dense", "shape": [None, None, 1], "weights": []}]})
        GRU(1, 4, num_layers=1, bias=True, batch_first=False, dtype=float32, reset_after=True)
        """
        from gru_c.interop import rtneural
        from gru_c.interop.formats import only
        from gru_c.interop.found import build

        with only("from_rtneural", source, max_bytes):
            found = rtneural.read(source, layer, max_bytes)
        return build(cls, found, dtype, reset_after=True, **options)

    def to_rtneural(self, path: Path) -> None:
        """Write a JSON file for RTNeural, with a layer for each of the model.

        Dropout and `batch_first` are not written.

        Parameters
        ----------
        path : path
            It is replaced as a whole. The biases of a model without are written as zeros.

        Raises
        ------
        ValueError
            An option that RTNeural does not have, such as two directions; the message names it.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import os, tempfile, gru_c
        >>> gru = gru_c.GRU(1, 4, rng=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "gru.json")
        ...     gru.to_rtneural(path)
        ...     again = gru_c.GRU.from_rtneural(path)
        >>> (again.weight_hh_l0 == gru.weight_hh_l0).all()
        np.True_
        """
        from gru_c.interop import rtneural
        from gru_c.interop.found import described

        rtneural.write(described(self), path)

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model to a file of gru_c: parameters, options and metadata.

        Whoever reads `path` in the meantime sees the old file or all of the new one. The same model
        gives the same bytes. The weights of a quantized model are stored in as many bits as it has.
        docs/interop/files.md describes the layout.

        Parameters
        ----------
        path : path-like
            It ends in ``.npz``, which NumPy reads, too, or in ``.safetensors``, which needs the
            package safetensors. Replaced if it exists; a symbolic link stays and its target is
            replaced.
        metadata : mapping of str to str, optional
            Kept in the file, together with the model's own `metadata`; of equal names, these win.

        Raises
        ------
        ValueError
            If the suffix is another one, if a name of `metadata` is one of the format's own
            (``format``, ``format_version``, ``options``), or if `load` could not read the file, as
            with a NaN in a weight of int8.
        TypeError
            If `metadata` holds anything but str.
        OSError
            If the file cannot be written: the disk is full, say. What was there is left as it was.
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
        from gru_c.interop import files
        from gru_c.interop.found import described

        files.write(described(self), path, metadata)

    @classmethod
    def load(cls, path: Path, max_bytes: int = MAX_BYTES) -> Self:
        """Read a model that `save` wrote, with its options, its dtype and its `metadata`.

        What a file says is checked before a model is made, and nothing in it is executed. Its
        content, not its name, tells which of the two formats it has. The model is in training mode,
        as any new one; a model with dropout and a quantized one are in eval mode.

        Parameters
        ----------
        path : path-like
        max_bytes : int
            The most bytes that the arrays of the file together may declare, checked before any is
            read.

        Returns
        -------
        GRU, ReverseGRU or GRUCell
            Of the class that the method is called on; but `GRU.load` gives a `ReverseGRU` if that
            is what was saved. A cell and a GRU of one layer read each other's files.

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
        from gru_c.interop.formats import only
        from gru_c.interop.found import build

        with only("load", path, max_bytes):
            found = files.read(path, max_bytes)
        model = build(cls, found)
        model.metadata = found.metadata
        return model
