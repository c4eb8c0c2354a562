"""ONNX: GRU nodes of a model, read and written.

A node is one layer, of one direction or two; nodes of which one takes the output of another are the
layers of a GRU. Its gates are stacked z, r, h, directions come first in its arrays, and the two
biases are one array: W (D, 3H, I), R (D, 3H, H), B (D, 6H). linear_before_reset is reset_after.

graph.py has what a model is, and the values of its tensors; writing.py writes models.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c._activations import DEFAULTS
from gru_c.interop.arrays import as_array
from gru_c.interop.found import Found
from gru_c.interop.layers import SUFFIXES, swapped
from gru_c.interop.onnx.graph import (
    TYPES,
    Constants,
    Model,
    NotConstantError,
    Scope,
    array_of,
    label,
    load,
    op,
    readable,
    tensors,
)
from gru_c.interop.onnx.writing import write
from gru_c.interop.state_dict import listed, size

if TYPE_CHECKING:
    from gru_c._exchange import Path
    from gru_c._types import Array

__all__ = ["find", "read", "read_arrays", "write"]

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h")
X, W, R, B, LENS, H_0 = range(6)
DIRECTIONS = {"forward": ("",), "reverse": ("",), "bidirectional": SUFFIXES}
ATTRIBUTES = {"activation_alpha": "floats", "activation_beta": "floats", "activations": "strings",
              "clip": "f", "direction": "s", "hidden_size": "i", "layout": "i",
              "linear_before_reset": "i", "output_sequence": "i"}
# Our names by ONNX's in lower case, and the defaults of alpha and beta where it takes them.
ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "sigmoid": ("sigmoid", None, None), "tanh": ("tanh", None, None), "relu": ("relu", None, None),
    "softsign": ("softsign", None, None), "softplus": ("softplus", None, None),
    "hardsigmoid": ("hard_sigmoid", 0.2, 0.5), "affine": ("affine", 1.0, 0.0),
    "leakyrelu": ("leaky_relu", 0.01, None), "thresholdedrelu": ("thresholded_relu", 1.0, None),
    "scaledtanh": ("scaled_tanh", 1.0, 1.0), "elu": ("elu", 1.0, None)}
BETWEEN_LAYERS = ("Identity", "Dropout", "Cast", "Squeeze", "Transpose", "Reshape", "Concat")
FLOATS = (1, 10, 11, 16)                                  # of TensorProto.DataType
MAX_BETWEEN = 20                                          # nodes between two layers
NO_GRU = ("PyTorch's newer exporter (dynamo=True) writes a GRU as many other nodes with onnxscript "
          "before 0.5.7, and nn.GRUCell always: export nn.GRU again with onnxscript 0.7.1 or newer "
          "or with dynamo=False, or read its parameters with from_torch. tf2onnx writes a GRU of "
          "Keras with reset_after=False as a Loop: read the model's own file with from_keras")


# ---- what others call --------------------------------------------------------------------------

def read(source: Any, node: str | None, linear_before_reset: int | None,
         weights: Mapping[str, Any] | None, max_bytes: int) -> Found:
    """The GRU of a model, a path or an onnx.ModelProto; of several the one that `node` selects.

    `weights` are arrays by the names of inputs of the graph that nodes take as W, R or B.
    """
    if linear_before_reset not in (None, 0, 1):
        raise ValueError(f"linear_before_reset must be None, 0 or 1, got {linear_before_reset!r}")
    if node is not None and not isinstance(node, str):
        raise TypeError(f"node must be a str, got {type(node).__name__}")
    given = _arrays(weights)
    model = load(source, max_bytes)
    with readable(model.where):
        constants = Constants(model, given)
        stack = _selected(model, constants, node)
        found = _found(model, constants, stack, linear_before_reset)
        if unused := [name for name in given if name not in constants.used]:
            inputs = [value.name for value in model.proto.graph.input]
            raise ValueError(f"{found.where}: weights has {listed(unused)}, not a W, R or B "
                             f"of it; inputs of the graph are {listed(inputs)}")
        _warn(model, stack, linear_before_reset)
    return found


def find(path: Path, max_bytes: int) -> list[Found]:
    """Every GRU of a file; a warning names those that cannot be read."""
    model = load(path, max_bytes)
    found = []
    with readable(model.where):
        for stack in _stacks(model, Constants(model)):
            try:
                found.append(_found(model, Constants(model), stack, None))
            except ValueError as error:
                warnings.warn(f"left out: {error}", UserWarning, stacklevel=3)
    return found


def read_arrays(path: Path, max_bytes: int) -> dict[str, Array]:
    """Initialisers, and values of Constant nodes, by name.

    Names in a subgraph or function begin with its node. A warning names tensors of types that NumPy
    does not have, which are left out.
    """
    model = load(path, max_bytes)
    with readable(model.where):
        every = dict(tensors(model))
        others = [name for name, tensor in every.items() if tensor.data_type not in TYPES]
        found = {name: array_of(model, tensor) for name, tensor in every.items()
                 if tensor.data_type in TYPES}
    if others:
        warnings.warn(f"{model.where}: left out, since NumPy does not have their types: "
                      f"{listed(others)}", UserWarning, stacklevel=3)
    return found


def _arrays(weights: Mapping[str, Any] | None) -> dict[str, Array]:
    if weights is None:
        return {}
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must be a mapping, got {type(weights).__name__}")
    return {name: as_array(a, f"weights[{name!r}]") for name, a in weights.items()}


# ---- one node ----------------------------------------------------------------------------------

@dataclass(eq=False)
class _Node:
    """A GRU node: where it is, its name, and its attributes as options of a GRU."""

    scope: Scope
    proto: Any
    name: str
    options: dict[str, Any]
    ends: tuple[str, ...]                                  # of names of parameters, by direction
    hidden_size: int | None                                # None if the node does not say
    problem: str = ""                                      # why no GRU here can be like it

    def input(self, index: int) -> str:
        """The name of an input, "" where it is left out."""
        return self.proto.input[index] if index < len(self.proto.input) else ""


def _nodes(model: Model) -> list[_Node]:
    return [_node(scope, proto) for scope in model.scopes for proto in scope.nodes
            if proto.op_type == "GRU" and proto.domain in ("", "ai.onnx")]


def _node(scope: Scope, proto: Any) -> _Node:
    name = scope.path + label(proto)
    try:
        if unknown := [a.name for a in proto.attribute if a.name not in ATTRIBUTES]:
            raise ValueError(f"unknown attribute {listed(unknown)}")
        told = {key: scope.attribute(proto, key, kind) for key, kind in ATTRIBUTES.items()}
        direction = (told["direction"] or "forward").lower()
        if direction not in DIRECTIONS:
            raise ValueError(f"direction is {direction!r}, expected {', '.join(DIRECTIONS)}")
        if told["layout"] not in (None, 0, 1):
            raise ValueError(f"layout is {told['layout']}, expected 0 or 1")
        activations = _activations(told, len(DIRECTIONS[direction]))
        clip = None if told["clip"] is None else _decimal(told["clip"])
        if clip is not None and not 0 < clip < np.inf:
            raise ValueError(f"clip is {clip}, expected a positive number")
    except ValueError as error:                            # raised when the node is asked for
        problem = f"node {name!r}: {error}"
        return _Node(scope, proto, name, {"problem": problem}, ("",), None, problem)
    options = {"bidirectional": direction == "bidirectional", "reverse": direction == "reverse",
               "reset_after": bool(told["linear_before_reset"]), **activations, "clip": clip,
               "batch_first": told["layout"] == 1}
    return _Node(scope, proto, name, options, DIRECTIONS[direction], told["hidden_size"])


def _activations(told: dict[str, Any], directions: int) -> dict[str, Any]:
    """f, of r and z, and g, of n: one pair for all directions."""
    names = told["activations"] or ["Sigmoid", "Tanh"] * directions
    if len(names) != 2 * directions:
        raise ValueError(f"activations are {listed(names)}, expected {2 * directions}")
    parameters = {"alpha": list(told["activation_alpha"] or []),
                  "beta": list(told["activation_beta"] or [])}
    pairs = [_activation(name, parameters) for name in names]
    for key, left in parameters.items():
        if left:
            raise ValueError(f"activation_{key} has {len(left)} values more than the activations "
                             f"{listed(names)} take")
    if pairs[:2] != pairs[-2:]:
        raise ValueError(f"its directions have activations of their own, {pairs[:2]} and "
                         f"{pairs[2:]}, which a GRU here does not have")
    return {"recurrent_activation": pairs[0], "activation": pairs[1]}


def _activation(name: str, parameters: dict[str, list[float]]) -> str | dict[str, Any]:
    """One of them. It takes the first values that are left, if it takes any."""
    if name.lower() not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}")
    ours, *defaults = ACTIVATIONS[name.lower()]
    found: dict[str, Any] = {"name": ours}
    for (key, values), default in zip(parameters.items(), defaults, strict=True):
        if default is not None:
            number = _decimal(values.pop(0)) if values else default
            own = DEFAULTS[ours][key]                      # 1/6, where the file has a float32
            found[key] = own if np.float32(own) == np.float32(number) else number
    return found if len(found) > 1 else ours


def _decimal(number: float) -> float:
    """The shortest number that is the same float32: 0.2 rather than 0.20000000298."""
    return float(str(np.float32(number)))


# ---- stacks ------------------------------------------------------------------------------------

def _selected(model: Model, constants: Constants, name: str | None) -> list[_Node]:
    """The nodes that the name selects: a stack, or one node; None: the only stack."""
    nodes = _nodes(model)
    if not nodes:
        ops = Counter(op(node) for scope in model.scopes for node in scope.nodes)
        there = ", ".join(f"{name} ({n})" for name, n in ops.most_common(12)) or "none"
        raise model.error(f"it has no GRU node; its nodes are {there}. {NO_GRU}")
    stacks = _stacks(model, constants)
    chosen = stacks if name is None else (
        [stack for stack in stacks if _name(stack) == name]
        or [[node] for node in nodes if node.name == name]
        or [[node] for node in nodes if name in node.proto.output])
    if len(chosen) == 1:
        return chosen[0]
    could = " or ".join(f"node={_name(stack)!r}{_sizes(model, stack)}" for stack in stacks[:12])
    what = (f"it has {len(stacks)} GRUs, which are not the layers of one" if name is None else
            f"it has {len(chosen)} GRU nodes {name!r}" if chosen else f"it has no node {name!r}")
    raise model.error(f"{what}; a GRU could be {could}")


def _name(stack: list[_Node]) -> str:
    return ", ".join(node.name for node in stack)


def _sizes(model: Model, stack: list[_Node]) -> str:
    try:
        return f" ({size(_found(model, Constants(model), stack, None))})"
    except ValueError:                                     # its weights are inputs, say
        return ""


def _stacks(model: Model, constants: Constants) -> list[list[_Node]]:
    """The GRUs of a model: each a list of nodes, the layers from the first to the last."""
    nodes = _nodes(model)
    by_output = {(id(node.scope), node.proto.output[0]): node for node in nodes
                 if node.proto.output and node.proto.output[0]}
    below = {node: _below(constants, node, by_output) for node in nodes}
    uses = Counter(below.values())
    above = {lower: node for node, lower in below.items() if lower and uses[lower] == 1}
    stacks = []
    for node in nodes:
        lower = below[node]
        if lower is not None and above.get(lower) is node:
            continue                                       # not a first layer
        stack = [node]
        while stack[-1] in above and len(stack) < len(nodes):
            stack.append(above[stack[-1]])
        stacks.append(stack)
    return stacks


def _below(constants: Constants, node: _Node,
           by_output: Mapping[tuple[int, str], _Node]) -> _Node | None:
    """The node whose output is the input of `node`, as in the layers of one GRU."""
    try:
        return _traced(constants, node, by_output)
    except ValueError:                                     # a node between them makes no sense
        return None


def _traced(constants: Constants, node: _Node,
            by_output: Mapping[tuple[int, str], _Node]) -> _Node | None:
    between: list[Any] = []
    name, scope = node.input(X), node.scope
    while (id(scope), name) not in by_output:
        producer = scope.producers.get(name)
        if (producer is None or producer.op_type not in BETWEEN_LAYERS or not producer.input
                or producer.domain not in ("", "ai.onnx") or _rounds(scope, producer)
                or len(between) == MAX_BETWEEN):
            return None
        between.append(producer)
        name = (_joined(constants, scope, producer) if producer.op_type == "Concat"
                else producer.input[0])
    lower = by_output[id(scope), name]
    if (lower is node or lower.problem or lower.options != node.options
            or lower.input(LENS) != node.input(LENS)):
        return None
    if node.input(H_0) in [y for y in lower.proto.output if y]:        # a decoder, say
        return None
    axes: str | None = "NTDH" if lower.options["batch_first"] else "TDNH"
    for producer in reversed(between):
        axes = axes and _moved(constants, lower, producer, axes)
    wanted = "NTH" if node.options["batch_first"] else "TNH"
    return lower if axes == wanted else None


def _rounds(scope: Scope, node: Any) -> bool:
    """Whether a node casts to something other than floating numbers."""
    return node.op_type == "Cast" and scope.attribute(node, "to", "i") not in FLOATS


def _moved(constants: Constants, lower: _Node, node: Any, axes: str) -> str | None:
    """The axes of the output of `lower` after a node between layers, None if they are lost.

    Where D is gone, H has D * hidden_size elements.
    """
    scope = lower.scope
    if node.op_type == "Transpose":
        perm = scope.attribute(node, "perm", "ints") or list(range(len(axes)))[::-1]
        return "".join(axes[i] for i in perm) if sorted(perm) == list(range(len(axes))) else None
    one = len(lower.ends) == 1
    if node.op_type == "Concat":                           # of the directions, see _joined
        return None if one or axes != "TDNH" else "TNH"
    if node.op_type == "Reshape":
        return _reshaped(axes, _integers(constants, scope, node, 1, "shape"), one)
    if node.op_type != "Squeeze":
        return axes
    numbers = _integers(constants, scope, node, 1, "axes")
    fits = (numbers == [axes.find("D")] or numbers == [axes.find("D") - len(axes)]
            or (numbers is None and lower.hidden_size != 1))
    return axes.replace("D", "") if one and "D" in axes and fits else None


def _joined(constants: Constants, scope: Scope, node: Any) -> str:
    """The Y whose two directions a Concat puts side by side, each by Slice and Squeeze: tf2onnx.

    "" if it does anything else.
    """
    found = set()
    for d, name in enumerate(node.input):
        squeeze = scope.producers.get(name)
        cut = scope.producers.get(squeeze.input[0]) if squeeze and squeeze.input else None
        if squeeze is None or cut is None or (squeeze.op_type, cut.op_type) != ("Squeeze", "Slice"):
            return ""
        starts, ends, axes, steps = (_integers(constants, scope, cut, i + 1, key) for i, key in
                                     enumerate(("starts", "ends", "axes", "steps")))
        # The end of the second may be beyond the axis.
        one = ends == [1] if d == 0 else ends is not None and len(ends) == 1 and ends[0] > 1
        if (_integers(constants, scope, squeeze, 1, "axes") != [1] or starts != [d] or not one
                or axes != [1] or steps not in (None, [1])):
            return ""
        found.add(cut.input[0])
    side_by_side = len(node.input) == 2 and scope.attribute(node, "axis", "i", 1) in (2, -1)
    return found.pop() if side_by_side and len(found) == 1 else ""


def _integers(constants: Constants, scope: Scope, node: Any, index: int,
              name: str) -> list[int] | None:
    """Of an input or, in an older opset, an attribute; None if there are none, or computed ones."""
    if index >= len(node.input) or not node.input[index]:
        numbers: list[int] | None = scope.attribute(node, name, "ints")
        return numbers
    try:
        return [int(n) for n in constants.value(scope, node.input[index]).ravel()[:8]]
    except NotConstantError:
        return None


def _reshaped(axes: str, shape: list[int] | None, one: bool) -> str | None:
    """The axes after a Reshape that joins D and H, or drops the only D."""
    if "D" in axes and not (axes.endswith("DH") or one):
        return None
    after = axes.replace("D", "")
    # 0 keeps an axis. With -1 and without 0, steps and rows could become one axis.
    kept = shape is None or (len(shape) == 3 and (0 in shape[:2] or -1 not in shape[:2]) and all(
        n != 0 or axes[i] == after[i] for i, n in enumerate(shape)))
    return after if kept else None


# ---- parameters --------------------------------------------------------------------------------

def _found(model: Model, constants: Constants, stack: list[_Node],
           linear_before_reset: int | None) -> Found:
    """The GRU of a stack of nodes."""
    layers = [_layer(model, constants, node) for node in stack]
    first, D = layers[0], len(stack[0].ends)
    H, options = first["weight_hh"].shape[2], dict(stack[0].options)
    bias = any("bias_ih" in layer for layer in layers)
    parameters: dict[str, Array] = {}
    for i, (node, layer) in enumerate(zip(stack, layers, strict=True)):
        inputs, hidden = layer["weight_ih"].shape[2], layer["weight_hh"].shape[2]
        if i and (inputs, hidden) != (D * H, H):
            raise model.error(f"node {node.name!r} has W and R for {inputs} inputs and "
                              f"hidden_size {hidden}, but as a layer above {stack[0].name!r} it "
                              f"would have {D * H} and {H}; read it alone by node=")
        zeros = np.zeros((D, 3 * H), layer["weight_hh"].dtype)
        for d, end in enumerate(node.ends):
            for key in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if bias else ())):
                parameters[f"{key}_l{i}{end}"] = swapped(layer.get(key, zeros)[d])
    if linear_before_reset is not None:
        options["reset_after"] = bool(linear_before_reset)
    options |= {"input_size": first["weight_ih"].shape[2], "hidden_size": H,
                "num_layers": len(stack), "bias": bias}
    name = _name(stack)
    return Found(options, parameters, f"{model.where}, node {name!r}", name,
                 f"ONNX, linear_before_reset={int(options['reset_after'])}",
                 {entry.key: entry.value for entry in model.proto.metadata_props},
                 arrays=constants.tensors())


def _layer(model: Model, constants: Constants, node: _Node) -> dict[str, Array]:
    """W, R and the two halves of B of a node, checked against each other."""
    if node.problem:
        raise model.error(node.problem)
    w, r, b = (_weight(model, constants, node, index) for index in (W, R, B))
    D = len(node.ends)
    if w is None or r is None:
        raise model.error(f"node {node.name!r} has no {'W' if w is None else 'R'}")
    H = r.shape[-1] if r.ndim == 3 else 0
    inputs = w.shape[-1] if w.ndim == 3 else 0
    if node.hidden_size not in (None, H):
        raise model.error(f"node {node.name!r} has hidden_size {node.hidden_size}, and R of shape "
                          f"{r.shape}")
    for key, a, shape in (("W", w, (D, 3 * H, inputs)), ("R", r, (D, 3 * H, H)),
                          ("B", b, (D, 6 * H))):
        if a is not None and (a.shape != shape or 0 in shape):
            expected = {"W": "3 * hidden_size, input_size", "R": "3 * hidden_size, hidden_size",
                        "B": "6 * hidden_size"}[key]
            raise model.error(f"node {node.name!r}: {key} has shape {a.shape}, expected "
                              f"({D}, {expected}), with hidden_size {H or 'at least 1'}")
    found = {"weight_ih": w, "weight_hh": r}
    if b is not None:
        found |= {"bias_ih": b[:, :3 * H], "bias_hh": b[:, 3 * H:]}
    return found


def _weight(model: Model, constants: Constants, node: _Node, index: int) -> Array | None:
    """The array of an input, None where it is left out."""
    name, key = node.input(index), INPUTS[index]
    if not name:
        return None
    try:
        a = constants.value(node.scope, name)
    except NotConstantError as error:
        if index == B and str(error) == "is left out":     # by the caller of a function
            return None
        raise model.error(f"node {node.name!r}: its {key}, {name!r}, {error}") from None
    if a.dtype not in (np.float16, np.float32, np.float64):
        raise model.error(f"node {node.name!r}: its {key}, {name!r}, has dtype {a.dtype}, "
                          "expected a floating dtype")
    return a


# ---- what a GRU does not keep ------------------------------------------------------------------

def _warn(model: Model, stack: list[_Node], linear_before_reset: int | None) -> None:
    """Warn of what gives other results than the file has, or than PyTorch had."""
    for node in stack:
        for index, argument in ((LENS, "lengths"), (H_0, "h_0")):
            if (value := _constant(model, node, index)) is None or not value.any():
                continue
            warnings.warn(
                f"{model.where}, node {node.name!r}: its {INPUTS[index]}, {node.input(index)!r}, "
                "is a constant of the model, which a GRU does not keep: pass it to each call as "
                f"{argument} (gru_c.interop.read_arrays gives the tensors of a file)",
                UserWarning, stacklevel=4)
    if (linear_before_reset is None and model.proto.producer_name == "pytorch"
            and not stack[0].options["reset_after"]):
        warnings.warn(
            f"{model.where}, node {stack[0].name!r}: linear_before_reset is 0, which PyTorch's "
            "newer exporter wrote for nn.GRU with onnxscript 0.5.7 to 0.7.0, though nn.GRU is "
            "linear_before_reset=1: pass that, or 0 if it is meant", UserWarning, stacklevel=4)


def _constant(model: Model, node: _Node, index: int) -> Array | None:
    """The value of an input if it is a constant."""
    if not node.input(index):
        return None
    try:
        return Constants(model).value(node.scope, node.input(index))
    except ValueError:                                     # an input of the graph, say
        return None
