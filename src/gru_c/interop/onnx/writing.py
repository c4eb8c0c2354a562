"""ONNX models written: a GRU node for each layer, and what stands between layers.

Inputs and outputs have the names and shapes that they have in a call of `GRU`. Nodes are time-major
always: ONNX Runtime has no layout=1, so batch_first is a Transpose at either end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c import _checks
from gru_c._activations import DEFAULTS
from gru_c.interop.containers.writing import write_atomically
from gru_c.interop.files import of_user
from gru_c.interop.layers import SUFFIXES, swapped
from gru_c.interop.onnx.graph import library

if TYPE_CHECKING:
    from gru_c._exchange import Path
    from gru_c._types import Array
    from gru_c.interop.found import Found

OLDEST_OPSET = 7                                           # of a GRU as it is today
MAX_BYTES = 2**31 - 2**20                                 # of a file of protobuf, but its nodes
# ONNX's names by ours: those of a GRU with the default of alpha and beta differ from ours.
ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softsign": "Softsign",
               "softplus": "Softplus", "linear": "Affine", "hard_sigmoid": "HardSigmoid",
               "affine": "Affine", "leaky_relu": "LeakyRelu",
               "thresholded_relu": "ThresholdedRelu", "scaled_tanh": "ScaledTanh", "elu": "Elu"}


def write(found: Found, path: Path, opset: int = 14, h_0: bool = False,
          lengths: bool = False) -> None:
    """Write a model of ONNX, with the inputs h_0 and lengths if they are asked for."""
    onnx = library()
    _checks.flag(h_0, "h_0")
    _checks.flag(lengths, "lengths")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= _checks.size(opset, "opset") <= newest:
        raise ValueError(f"opset must be from {OLDEST_OPSET} to {newest}, got {opset}")
    size = sum(a.nbytes for a in found.parameters.values())
    if size > MAX_BYTES:
        raise ValueError(f"{found.where} has parameters of {size} bytes, and a file of ONNX holds "
                         "less than 2 GiB")
    of_user(found.metadata, (), path)                      # refuses what is no text
    model = _Writer(onnx, found, opset, h_0, lengths).model()
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, model.SerializeToString(deterministic=True))


class _Writer:
    """The nodes, initialisers, inputs and outputs of a graph, in the order that they are made."""

    def __init__(self, onnx: Any, found: Found, opset: int, h_0: bool, lengths: bool) -> None:
        self.onnx, self.found, self.opset = onnx, found, opset
        self.options = found.options
        self.ends = SUFFIXES[:1 + self.options["bidirectional"]]
        self.nodes: list[Any] = []
        self.initialisers: list[Any] = []
        self.h_0 = "h_0" if h_0 else ""
        self.lengths = "lengths" if lengths else ""

    def model(self) -> Any:
        onnx = self.onnx
        self._nodes()
        opsets = [onnx.helper.make_opsetid("", self.opset)]
        # Below version 4, initialisers have to be inputs, too.
        ir_version = max(4, onnx.helper.find_min_ir_version_for(opsets))
        graph = onnx.helper.make_graph(self.nodes, "gru", self._inputs(), self._outputs(),
                                       self.initialisers)
        model = onnx.helper.make_model(graph, producer_name="gru_c", opset_imports=opsets,
                                       ir_version=ir_version)
        onnx.helper.set_model_props(model, dict(sorted(self.found.metadata.items())))
        return model

    # ---- nodes ---------------------------------------------------------------------------------

    def _nodes(self) -> None:
        layers, batch_first = self.options["num_layers"], self.options.get("batch_first")
        name = "input"
        if batch_first:
            name = self._node("Transpose", [name], "input_time_major", perm=[1, 0, 2])
        for layer in range(layers):
            last = layer == layers - 1
            name = self._layer(layer, name, "output" if last and not batch_first else
                               "output_time_major" if last else f"output_l{layer}",
                               "h_n" if layers == 1 else f"h_n_l{layer}")
        if batch_first:
            self._node("Transpose", [name], "output", perm=[1, 0, 2])
        if layers > 1:
            self._node("Concat", [f"h_n_l{layer}" for layer in range(layers)], "h_n", axis=0)

    def _layer(self, layer: int, x: str, output: str, h_n: str) -> str:
        """A GRU node, and its output with the directions side by side."""
        weights = {name: self._stacked(name, layer) for name in ("weight_ih", "weight_hh")}
        inputs = [x, self._array(f"W_l{layer}", weights["weight_ih"]),
                  self._array(f"R_l{layer}", weights["weight_hh"]), "", self.lengths,
                  self._state(layer)]
        if self.options["bias"]:
            b = [self._stacked(name, layer) for name in ("bias_ih", "bias_hh")]
            inputs[3] = self._array(f"B_l{layer}", np.concatenate(b, axis=1))
        while not inputs[-1]:
            inputs.pop()
        y = f"Y_l{layer}"
        self.nodes.append(self.onnx.helper.make_node(
            "GRU", inputs, [y, h_n], name=f"gru_l{layer}", **self._attributes()))
        if len(self.ends) == 1:
            axes = {"axes": [1]} if self.opset < 13 else {}
            more = [] if axes else [self._array("axis_of_directions", np.array([1]))]
            return self._node("Squeeze", [y, *more], output, **axes)
        moved = self._node("Transpose", [y], f"{y}_moved", perm=[0, 2, 1, 3])
        shape = self._array("steps_batch_rest", np.array([0, 0, -1]))
        return self._node("Reshape", [moved, shape], output)

    def _state(self, layer: int) -> str:
        """The name of the first states of a layer, "" for zeros."""
        D, layers = len(self.ends), self.options["num_layers"]
        if not self.h_0 or layers == 1:
            return self.h_0
        rows = self._array(f"states_l{layer}", np.arange(layer * D, (layer + 1) * D))
        return self._node("Gather", [self.h_0, rows], f"h_0_l{layer}", axis=0)

    def _node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [output], name=output,
                                                     **attributes))
        return output

    def _array(self, name: str, a: Array) -> str:
        """An initialiser."""
        if all(tensor.name != name for tensor in self.initialisers):
            self.initialisers.append(self.onnx.numpy_helper.from_array(
                np.ascontiguousarray(a), name))
        return name

    def _stacked(self, name: str, layer: int) -> Array:
        """A parameter of each direction, gates stacked z, r, h."""
        return np.stack([swapped(self.found.parameters[f"{name}_l{layer}{end}"])
                         for end in self.ends]).astype(self.found.dtype, copy=False)

    # ---- attributes ----------------------------------------------------------------------------

    def _attributes(self) -> dict[str, Any]:
        options = self.options
        attributes = {
            "hidden_size": options["hidden_size"],
            "linear_before_reset": int(options.get("reset_after", True)),
            "direction": ("bidirectional" if options["bidirectional"] else
                          "reverse" if options.get("reverse") else "forward")}
        if options.get("clip") is not None:
            attributes["clip"] = _float32(options["clip"], "clip")
        own = [options.get("recurrent_activation", "sigmoid"), options.get("activation", "tanh")]
        if own != ["sigmoid", "tanh"]:
            roles = [self._activation(value, role) for value, role in zip(
                own, ("recurrent_activation", "activation"), strict=True)] * len(self.ends)
            attributes["activations"] = [name for name, _ in roles]
            for key in ("alpha", "beta"):
                if values := [numbers[key] for _, numbers in roles if key in numbers]:
                    attributes[f"activation_{key}"] = values
        return attributes

    def _activation(self, value: Any, role: str) -> tuple[str, dict[str, float]]:
        """ONNX's name, and alpha and beta as far as it takes them."""
        given = {"name": value} if isinstance(value, str) else dict(value)
        name = given.pop("name")
        numbers: dict[str, Any] = {"alpha": 1.0, "beta": 0.0}
        if name != "linear":
            numbers = DEFAULTS[name] | given
        return ACTIVATIONS[name], {key: _float32(number, f"{key} of {role}")
                                   for key, number in numbers.items()}

    # ---- inputs and outputs --------------------------------------------------------------------

    def _inputs(self) -> list[Any]:
        inputs = [self._value("input", (*self._leading, self.options["input_size"]))]
        if self.h_0:
            inputs.append(self._value("h_0", self._states))
        if self.lengths:
            inputs.append(self.onnx.helper.make_tensor_value_info(
                "lengths", self.onnx.TensorProto.INT32, ("batch",)))
        return inputs

    def _outputs(self) -> list[Any]:
        H = self.options["hidden_size"]
        return [self._value("output", (*self._leading, len(self.ends) * H)),
                self._value("h_n", self._states)]

    @property
    def _leading(self) -> tuple[str, str]:
        return ("batch", "steps") if self.options.get("batch_first") else ("steps", "batch")

    @property
    def _states(self) -> tuple[int, str, int]:
        return len(self.ends) * self.options["num_layers"], "batch", self.options["hidden_size"]

    def _value(self, name: str, shape: tuple[int | str, ...]) -> Any:
        dtype = self.onnx.helper.np_dtype_to_tensor_dtype(self.found.dtype)
        return self.onnx.helper.make_tensor_value_info(name, dtype, shape)


def _float32(number: float, name: str) -> float:
    """A number of an attribute, which is a float32."""
    with np.errstate(over="ignore"):
        found = float(np.float32(number))
    if math.isinf(found) or (found == 0) != (number == 0):
        raise ValueError(f"{name} is {number}, which an attribute of ONNX, a float32, cannot hold")
    return found
