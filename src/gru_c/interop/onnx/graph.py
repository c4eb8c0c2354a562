"""ONNX models: the file, its tensors as arrays, its scopes of names, and values of constants.

A `Scope` holds the names of a graph, of a subgraph (a branch of If, a body of Loop or Scan) or of a
call of a function. `Constants` computes what the weights of a node are. Nothing is trusted: sizes
that are declared are held against the bytes that are there before memory is taken.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c.interop.arrays import widened
from gru_c.interop.containers.reading import all_of
from gru_c.interop.errors import MissingExtraError, ModelFileError, hold_size
from gru_c.interop.state_dict import listed

if TYPE_CHECKING:
    from gru_c._types import Array

# TensorProto.DataType: the dtype of the bytes, and the field of values that are not bytes.
FIELDS = {"float_data": np.float32, "double_data": np.float64, "int32_data": np.int32,
          "int64_data": np.int64, "uint64_data": np.uint64}
TYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"), 2: ("<u1", "int32_data"), 3: ("<i1", "int32_data"),
    4: ("<u2", "int32_data"), 5: ("<i2", "int32_data"), 6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"), 9: ("?", "int32_data"), 10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"), 12: ("<u4", "uint64_data"), 13: ("<u8", "uint64_data"),
    14: ("<c8", "float_data"), 15: ("<c16", "double_data"), 16: ("<u2", "int32_data")}
BFLOAT16 = 16

# The fields of an attribute, and AttributeProto.AttributeType. Tensors and graphs are read as they
# are.
KINDS = {"f": 1, "i": 2, "s": 3, "t": 4, "floats": 6, "ints": 7, "strings": 8}

FILE_BEYOND_ARRAYS = 2**27                                 # bytes of nodes, names and so on
MAX_NODES = 200_000                                        # with functions at each of their calls
MAX_CALLS = 16                                            # of functions inside each other
MAX_DIMS = 32
MAX_ELEMENTS = 2**58                                       # NumPy multiplies dims that are not 0
MAX_STEPS = 2000                                          # from tensors to one weight
NUMBER = re.compile(r"\d{1,18}")


def library() -> Any:
    """The onnx package."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "onnx") from error
    return onnx


# ---- models ------------------------------------------------------------------------------------

@dataclass
class Model:
    """A model: the ModelProto, its name for errors, its folder, and the bytes of all tensors."""

    proto: Any
    where: str
    folder: str | None = None
    declared: int = 0
    scopes: list[Scope] = field(default_factory=list)

    def error(self, text: str) -> ModelFileError:
        return ModelFileError(f"{self.where}: {text}")


def load(source: Any, max_bytes: int) -> Model:
    """A model from a path or a ModelProto. Its arrays declare at most `max_bytes`."""
    onnx = library()
    if isinstance(source, onnx.ModelProto):
        model = Model(source, "the ONNX model")
    elif isinstance(source, (str, bytes, os.PathLike)):
        model = _parsed(onnx, os.fsdecode(source), max_bytes)
    else:
        raise TypeError("source must be a path or an onnx.ModelProto, "
                        f"got {type(source).__name__}")
    with readable(model.where):
        if not model.proto.HasField("graph"):
            raise model.error("it is not an ONNX model")
        if any(isinstance(text, bytes) for text in _texts(model.proto)):
            raise model.error("it is not an ONNX model, or damaged: a name is not UTF-8")
        model.scopes = _scopes(model)
        model.declared = sum(_bytes_declared(model, tensor) for _, tensor in tensors(model))
    hold_size(model.declared, max_bytes, model.where)
    return model


def _parsed(onnx: Any, path: str, max_bytes: int) -> Model:
    with open(path, "rb") as file:
        most, size = max_bytes + FILE_BEYOND_ARRAYS, os.fstat(file.fileno()).st_size
        data = all_of(file, most) if size <= most else b""  # a pipe or a device has no size
        if max(size, len(data)) > most:
            raise ModelFileError(f"{path}: it has {max(size, len(data))} bytes or more, many more "
                                 f"than max_bytes={max_bytes}; raise max_bytes to read it")
    with readable(path):
        return Model(onnx.ModelProto.FromString(data), path, os.path.dirname(path) or ".")


def _texts(message: Any) -> Iterator[str | bytes]:
    """All texts of a message; of a tensor those beside its numbers, which would be copied."""
    if hasattr(message, "raw_data"):
        yield message.name
        for entry in message.external_data:
            yield from (entry.key, entry.value)
        return
    for kind, value in message.ListFields():
        if kind.type == kind.TYPE_STRING:
            yield from [value] if isinstance(value, (str, bytes)) else value
        elif kind.type == kind.TYPE_MESSAGE:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _texts(inner)


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Errors of protobuf become one of ours."""
    from google.protobuf.message import DecodeError

    try:
        yield
    except (DecodeError, UnicodeDecodeError) as error:     # names are decoded when they are read
        raise ModelFileError(f"{where}: it is not an ONNX model, or damaged: {error}") from None


# ---- scopes ------------------------------------------------------------------------------------

@dataclass
class Scope:
    """The names of a graph, a subgraph or a call of a function.

    `path` tells where it is: "" for the graph of the model. `inputs` have their sizes, as far as
    they are fixed. Names that are not here are those of `outer`, if it is a subgraph; `arguments`
    are those of the call of a function.
    """

    path: str
    nodes: Any
    tensors: dict[str, Any] = field(default_factory=dict)
    sparse: frozenset[str] = frozenset()
    inputs: dict[str, list[int | None]] = field(default_factory=dict)
    outer: Scope | None = None
    arguments: dict[str, tuple[Scope, str]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    producers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.producers = {name: node for node in self.nodes for name in node.output if name}

    def attribute(self, node: Any, name: str, kind: str, default: Any = None) -> Any:
        """The value of an attribute of a node, a reference in a function resolved.

        Raises ValueError if it is of another kind.
        """
        found = next((a for a in node.attribute if a.name == name), None)
        if found is not None and found.ref_attr_name:
            found = self.attributes.get(found.ref_attr_name)
        if found is None:
            return default
        if found.type not in (0, KINDS[kind]):             # 0: not said, by the oldest writers
            raise ValueError(f"its attribute {name} is not of the type that ONNX says")
        value = getattr(found, kind)
        if kind == "s":
            return value.decode("utf-8", "replace")
        if kind == "strings":
            return [text.decode("utf-8", "replace") for text in value]
        return list(value) if kind in ("floats", "ints") else value


def label(node: Any) -> str:
    """The name of a node, or of its first output."""
    return node.name or next((name for name in node.output if name), "")


def op(node: Any) -> str:
    """The name of an operator, for errors of one line."""
    return node.op_type if node.op_type.isidentifier() else repr(node.op_type)


def _scopes(model: Model) -> list[Scope]:
    """Those of the graph, its subgraphs and the functions that they call."""
    functions = {(f.domain, f.name): f for f in model.proto.functions}
    count = 0

    def inside(scope: Scope, calls: int) -> Iterator[Scope]:
        nonlocal count
        count += len(scope.nodes)
        if count > MAX_NODES:
            raise model.error(f"it has more than {MAX_NODES} nodes")
        yield scope
        for node in scope.nodes:
            if function := functions.get((node.domain, node.op_type)):
                if calls == MAX_CALLS:
                    raise model.error(f"its functions call each other more than {calls} deep")
                yield from inside(_of_a_call(scope, node, function), calls + 1)
            for attribute in node.attribute:
                graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
                for graph in graphs:
                    path = f"{scope.path}{label(node)}.{attribute.name}/"
                    yield from inside(_of_a_graph(graph, path, scope), calls)

    return list(inside(_of_a_graph(model.proto.graph, "", None), 0))


def _of_a_graph(graph: Any, path: str, outer: Scope | None) -> Scope:
    return Scope(path, graph.node, {tensor.name: tensor for tensor in graph.initializer},
                 frozenset(tensor.values.name for tensor in graph.sparse_initializer),
                 {value.name: _sizes(value) for value in graph.input}, outer,
                 attributes=outer.attributes if outer else {})


def _sizes(value: Any) -> list[int | None]:
    return [dim.dim_value if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim]


def _of_a_call(scope: Scope, node: Any, function: Any) -> Scope:
    given = [(scope, name) for name in node.input] + [(scope, "")] * len(function.input)
    attributes = {a.name: a for a in function.attribute_proto}
    for a in node.attribute:
        value = scope.attributes.get(a.ref_attr_name) if a.ref_attr_name else a
        if value is not None:
            attributes[a.name] = value
    return Scope(f"{scope.path}{label(node)}/", function.node, attributes=attributes,
                 arguments=dict(zip(function.input, given, strict=False)))


# ---- tensors -----------------------------------------------------------------------------------

def tensors(model: Model) -> Iterator[tuple[str, Any]]:
    """Each tensor with the name that `read_arrays` gives it: initialisers and Constants."""
    seen = set()
    for scope in model.scopes:
        own = dict(scope.tensors)
        own |= {node.output[0]: a.t for node in scope.nodes if _is_constant(node) and node.output
                for a in node.attribute if a.name == "value" and a.HasField("t")}
        for name, tensor in own.items():
            name = scope.path + name
            if name not in seen:                           # a Constant beside an initialiser
                seen.add(name)
                yield name, tensor


def _is_constant(node: Any) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def _count(model: Model, tensor: Any) -> int:
    """Elements that a tensor declares."""
    dims = tensor.dims
    if (len(dims) > MAX_DIMS or any(n < 0 for n in dims)
            or (0 in dims and math.prod(n for n in dims if n) > MAX_ELEMENTS)):
        raise model.error(f"tensor {tensor.name!r} has dims {list(tensor.dims[:MAX_DIMS])}")
    return math.prod(dims)


def _bytes_declared(model: Model, tensor: Any) -> int:
    """As it is read, or as protobuf holds it: halves that are numbers take four bytes each.

    Of types that NumPy does not have, half a byte at least.
    """
    count = _count(model, tensor)
    if tensor.data_type not in TYPES:
        return (count + 1) // 2
    dtype, numbers = TYPES[tensor.data_type]
    size = 4 if tensor.data_type == BFLOAT16 else np.dtype(dtype).itemsize
    if tensor.data_location != 1 and not tensor.HasField("raw_data"):
        size = max(size, np.dtype(FIELDS[numbers]).itemsize)
    return count * size


def array_of(model: Model, tensor: Any) -> Array:
    """A tensor as an array, bfloat16 as float32."""
    name, count = tensor.name, _count(model, tensor)
    if tensor.data_type not in TYPES:
        raise model.error(f"tensor {name!r} has the ONNX type {tensor.data_type}, which NumPy "
                          "does not have")
    if tensor.HasField("segment"):
        raise model.error(f"tensor {name!r} is a segment of one, which is not read")
    dtype, values = np.dtype(TYPES[tensor.data_type][0]), TYPES[tensor.data_type][1]
    if tensor.data_location == 1:
        flat = _external(model, tensor, dtype, count)
    elif tensor.HasField("raw_data"):
        data = tensor.raw_data
        if len(data) != count * dtype.itemsize:
            raise model.error(f"tensor {name!r} has {len(data)} bytes, expected "
                              f"{count * dtype.itemsize} for dims {list(tensor.dims)}")
        flat = np.frombuffer(data, dtype)
    else:
        flat = _from_values(model, tensor, dtype, count, values)
    if tensor.data_type == BFLOAT16:
        flat = widened(flat)
    return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(list(tensor.dims))


def _from_values(model: Model, tensor: Any, dtype: np.dtype[Any], count: int, name: str) -> Array:
    """From a field of numbers. Complex ones are pairs, halves are bits."""
    values = getattr(tensor, name)
    count *= 2 if dtype.kind == "c" else 1
    if len(values) != count:
        raise model.error(f"tensor {tensor.name!r} has {len(values)} values, expected {count} "
                          f"for dims {list(tensor.dims)}")
    flat = np.fromiter(values, FIELDS[name], count)
    if dtype.kind == "c":
        return flat.view(f"c{dtype.itemsize}")
    if dtype == np.float16:
        return flat.astype(np.uint16).view(np.float16)
    return flat.astype(dtype)                              # cut, as a C cast would


def _external(model: Model, tensor: Any, dtype: np.dtype[Any], count: int) -> Array:
    """From a file in the folder of the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    named = f"tensor {tensor.name!r} lies in the file {entries.get('location', '')!r}"
    numbers = [entries.get(key, default) for key, default in (
        ("offset", "0"), ("length", str(count * dtype.itemsize)))]
    if not all(NUMBER.fullmatch(number) for number in numbers):
        raise model.error(f"{named} at {numbers[0][:40]!r}, {numbers[1][:40]!r}: no numbers")
    offset, length = map(int, numbers)
    if length != count * dtype.itemsize:
        raise model.error(f"{named} with {length} bytes, expected {count * dtype.itemsize} for "
                          f"dims {list(tensor.dims)}")
    path = _beside(model, entries.get("location", ""), named)
    size = os.stat(path).st_size
    if offset + length > size:
        raise model.error(f"{named} from {offset} to {offset + length}, but that has {size} bytes")
    return np.fromfile(path, dtype, count, offset=offset)


def _beside(model: Model, location: str, named: str) -> str:
    """The path of a file in the folder of the model."""
    if model.folder is None:
        raise model.error(f"{named}: give the path of the model, or load it with its external data")
    parts = location.replace("\\", "/").split("/")
    if not location or "\0" in location or os.path.isabs(location) or ".." in parts:
        raise model.error(f"{named}, which is not in the folder of the model")
    folder = os.path.realpath(model.folder)
    path = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath([folder, path]) != folder:
        raise model.error(f"{named}, a link out of the folder of the model: copy the file there")
    if not os.path.exists(path):
        raise model.error(f"{named}, which is not there")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise model.error(f"{named}, which is not a regular file")
    return path


# ---- constants ---------------------------------------------------------------------------------

class NotConstantError(ValueError):
    """A name has no value before the model runs; the message says why."""


class Constants:
    """Values of names: tensors, arrays given for inputs of the graph, and simple steps from these.

    What steps copy is at most eight times what the tensors declare: float16 weights of two
    directions that an exporter has left in pieces are cast, and put together twice.
    """

    def __init__(self, model: Model, given: Mapping[str, Array] | None = None) -> None:
        self.model = model
        self.given: dict[str, Array] = dict(given or {})
        self.used: set[str] = set()
        self._read: dict[int, tuple[Any, Array]] = {}
        self._all = model.declared + sum(a.nbytes for a in self.given.values())
        self._left = 8 * self._all + 2**16
        self._steps = 0

    def value(self, scope: Scope, name: str) -> Array:
        """The array of that name. Raises NotConstantError."""
        self._steps = 0
        found = self._value(scope, name, 0)
        # Expanded: a view of few bytes, so that memory is not yet taken.
        if 0 in found.strides and found.nbytes > self._all:
            raise self.model.error(f"{name!r} is larger than all tensors of the model")
        return found

    def _value(self, scope: Scope, name: str, depth: int) -> Array:
        self._steps += 1
        if self._steps > MAX_STEPS or depth > 200:
            raise self.model.error(f"{name!r} is too many steps away from tensors")
        if scope.outer is None and not scope.path and name in self.given:
            self.used.add(name)
            return self.given[name]
        if name in scope.arguments:
            caller, actual = scope.arguments[name]
            if not actual:
                raise NotConstantError("is left out")
            return self._value(caller, actual, depth + 1)
        if name in scope.sparse:
            raise NotConstantError("is a sparse initialiser, which is not read: store it dense")
        if name in scope.tensors:
            return self._tensor(scope.tensors[name])
        if name in scope.producers:
            return self._computed(scope, scope.producers[name], depth)
        if name in scope.inputs:
            more = "" if scope.path else f": give it, as weights={{{name!r}: array}}"
            raise NotConstantError(f"is an input of the graph{more}")
        if scope.outer is not None:
            return self._value(scope.outer, name, depth + 1)
        raise self.model.error(f"nothing gives {name!r}")

    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that values were made from, as `read_arrays` has them."""
        return tuple(name for name, tensor in tensors(self.model) if id(tensor) in self._read)

    def _tensor(self, tensor: Any) -> Array:
        key = id(tensor)                                   # unique as long as we hold the tensor
        if key not in self._read:
            self._read[key] = tensor, array_of(self.model, tensor)
        return self._read[key][1]

    def _computed(self, scope: Scope, node: Any, depth: int) -> Array:
        try:
            with np.errstate(all="ignore"):
                return self._result(scope, node, depth)
        except (ValueError, IndexError, TypeError, KeyError, OverflowError) as error:
            if isinstance(error, (NotConstantError, ModelFileError)):
                raise
            raise self.model.error(f"the {op(node)} node {label(node)!r} does not fit its inputs: "
                                   f"{error}") from None

    def _result(self, scope: Scope, node: Any, depth: int) -> Array:
        if _is_constant(node):
            return self._constant(scope, node)
        step = STEPS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if step is _shape and node.input and node.input[0] in scope.inputs:
            return self._size_of_input(scope, node)
        if step is None:
            raise NotConstantError(f"is computed by the {op(node)} node {label(node)!r}")
        inputs = [self._value(scope, name, depth + 1) if name else None for name in node.input]
        return step(_Step(self, scope, node, inputs))

    def _constant(self, scope: Scope, node: Any) -> Array:
        for name, kind, dtype in (("value_float", "f", np.float32), ("value_int", "i", np.int64),
                                  ("value_floats", "floats", np.float32),
                                  ("value_ints", "ints", np.int64)):
            value = scope.attribute(node, name, kind)
            if value is not None:
                return np.array(value, dtype)
        tensor = scope.attribute(node, "value", "t")
        if tensor is None:
            kinds = listed(a.name for a in node.attribute) or "no value"
            raise NotConstantError(f"is the Constant {label(node)!r} with {kinds}, "
                                   "which is not read")
        return self._tensor(tensor)

    def _size_of_input(self, scope: Scope, node: Any) -> Array:
        """Where an exporter takes hidden_size from an input."""
        chosen = slice(scope.attribute(node, "start", "i", 0), scope.attribute(node, "end", "i"))
        sizes = scope.inputs[node.input[0]][chosen]
        if not sizes or None in sizes:
            raise NotConstantError(f"is a size of the input {node.input[0]!r}")
        return np.array(sizes, np.int64)

    def pay(self, size: int) -> None:
        """For bytes that a step is about to copy."""
        self._left -= size
        if self._left < 0:
            raise self.model.error("its constants are copied over and over before they are used")


@dataclass
class _Step:
    """A node and its inputs, None where they are left out."""

    constants: Constants
    scope: Scope
    node: Any
    inputs: list[Array | None]

    @property
    def first(self) -> Array:
        a = self.inputs[0]
        if a is None:
            raise ValueError("the first is left out")
        return a

    def attribute(self, name: str, kind: str, default: Any = None) -> Any:
        return self.scope.attribute(self.node, name, kind, default)

    def integers(self, index: int, name: str) -> list[int] | None:
        """An input or, of an older opset, an attribute."""
        given = self.inputs[index] if index < len(self.inputs) else None
        if given is None:
            numbers: list[int] | None = self.attribute(name, "ints")
            return numbers
        if given.dtype.kind not in "iu" or given.size > 64:
            raise ValueError(f"{name} has dtype {given.dtype} and shape {given.shape}")
        return [int(n) for n in given.ravel()]


def _concat(step: _Step) -> Array:
    parts = [a for a in step.inputs if a is not None]
    step.constants.pay(sum(a.nbytes for a in parts))
    return np.concatenate(parts, step.attribute("axis", "i", 1))


def _cast(step: _Step) -> Array:
    to = step.attribute("to", "i")
    if to not in TYPES or to == BFLOAT16:
        raise NotConstantError(f"is cast to the ONNX type {to}")
    dtype = np.dtype(TYPES[to][0]).newbyteorder("=")
    step.constants.pay(step.first.size * dtype.itemsize)
    return step.first.astype(dtype)


def _unsqueeze(step: _Step) -> Array:
    return np.expand_dims(step.first, tuple(step.integers(1, "axes") or ()))


def _squeeze(step: _Step) -> Array:
    axes = step.integers(1, "axes")
    return np.squeeze(step.first, None if axes is None else tuple(axes))


def _slice(step: _Step) -> Array:
    starts, ends = step.integers(1, "starts") or [], step.integers(2, "ends") or []
    axes = step.integers(3, "axes")
    axes = list(range(len(starts))) if axes is None else axes
    steps = step.integers(4, "steps") or [1] * len(starts)
    chosen = [slice(None)] * step.first.ndim
    for axis, start, end, stride in zip(axes, starts, ends, steps, strict=True):
        chosen[axis] = slice(start, end, stride)
    return step.first[tuple(chosen)]


def _reshape(step: _Step) -> Array:
    shape = step.integers(1, "shape") or []
    if not step.attribute("allowzero", "i", 0):
        shape = [step.first.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    step.constants.pay(step.first.nbytes)                  # of a transposed array it is a copy
    return step.first.reshape(shape)


def _shape(step: _Step) -> Array:
    chosen = slice(step.attribute("start", "i", 0), step.attribute("end", "i"))
    return np.array(step.first.shape[chosen], np.int64)


def _expand(step: _Step) -> Array:
    """A view: no memory, however large its shape says it is."""
    shape = np.broadcast_shapes(step.first.shape, tuple(step.integers(1, "shape") or ()))
    return np.broadcast_to(step.first, shape)


def _mul(step: _Step) -> Array:
    """Of sizes."""
    one, other = step.inputs
    if one is None or other is None or max(one.size, other.size) > 64:
        raise NotConstantError("is a product")
    product: Array = one * other
    return product


# What exporters leave between tensors and the weights of a node if they do not fold constants.
STEPS: dict[str, Callable[[_Step], Array]] = {
    "Identity": lambda step: step.first, "Concat": _concat, "Cast": _cast, "Slice": _slice,
    "Transpose": lambda step: np.transpose(step.first, step.attribute("perm", "ints")),
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape,
    "Shape": _shape, "Expand": _expand, "Mul": _mul,
}
