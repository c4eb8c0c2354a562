"""What Keras reads: the list for `set_weights`, and files of a Sequential of GRU layers.

`.keras` and `.weights.h5` are in the form of Keras 3; `.h5` in that of Keras 2, which Keras 3
reads, too. The bytes of a file depend on the model alone: dates are fixed.
"""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from gru_c._parameters import NAMES
from gru_c.interop.containers import hdf5, zips
from gru_c.interop.containers.writing import write_atomically
from gru_c.interop.keras.config import joined, keras_activation
from gru_c.interop.keras.files import CONFIG, METADATA, ORDER, WEIGHTS
from gru_c.interop.layers import SUFFIXES, swapped

if TYPE_CHECKING:
    from gru_c._exchange import Path
    from gru_c._types import Array
    from gru_c.interop.found import Found

KERAS, KERAS_2 = "3.0.0", "2.15.0"                         # whose form the files have
# Activations whose names mean the same in Keras 2 and 3.
SAME = ("sigmoid", "tanh", "relu", "softsign", "softplus", "linear", "elu")


def weights(found: Found) -> list[Array]:
    """The arrays for `set_weights` of a GRU, GRUCell or Bidirectional(GRU)."""
    if found.options["num_layers"] > 1:
        raise ValueError(
            f"{found.where} has num_layers={found.options['num_layers']}, a layer of Keras has "
            "one: write a .keras file, a Sequential of all layers, with model.save(path) and "
            "gru_c.interop.convert(path, 'model.keras')")
    _options(found)                                        # refuses what no layer has
    return [a for suffix in _suffixes(found, 0) for a in _arrays(found, suffix)]


def write(found: Found, path: Path) -> None:
    """Write a `.keras` or `.h5` file, or only the weights to `.weights.h5`."""
    name = os.fsdecode(path)
    suffix = name.lower()
    if not suffix.endswith((".keras", ".h5")):
        raise ValueError(f"{name}: Keras's files end in .keras or .h5, or in .weights.h5 for the "
                         "weights alone")
    layers = _layers(found)
    whole_model = suffix.endswith(".h5") and not suffix.endswith(".weights.h5")
    data = _hdf5_of_keras_2(found, layers) if whole_model else _hdf5(found)
    if suffix.endswith(".keras"):
        sequential = {"module": "keras", "class_name": "Sequential", "registered_name": None,
                      "config": {"name": "sequential", "trainable": True, "layers": layers}}
        metadata = {"keras_version": KERAS, "date_saved": "1980-01-01@00:00:00"}
        data = zips.packed(((METADATA, json.dumps(metadata).encode()),
                            (CONFIG, json.dumps(sequential).encode()), (WEIGHTS, data)))
    write_atomically(path, data)


# ---- arrays --------------------------------------------------------------------------------------

def _suffixes(found: Found, layer: int) -> list[str]:
    return [f"l{layer}{end}" for end in SUFFIXES[:1 + found.options["bidirectional"]]]


def _arrays(found: Found, suffix: str) -> list[Array]:
    """kernel, recurrent_kernel and bias of a direction: with reset_after=False, the sum of both."""
    W_ih, W_hh, *biases = (swapped(found.parameters[f"{name}_{suffix}"]) for name in NAMES
                           if f"{name}_{suffix}" in found.parameters)
    if not biases:
        return [W_ih.T.copy(), W_hh.T.copy()]
    if found.options.get("reset_after", True):
        bias = np.stack(biases)
    else:                                                  # a model read from one gives it back
        bias = biases[0] + biases[1] if biases[1].any() else biases[0]
    return [W_ih.T.copy(), W_hh.T.copy(), bias]


def _hdf5(found: Found) -> bytes:
    """The weights of a Sequential as Keras 3 stores them."""
    file = io.BytesIO()
    with hdf5.h5py().File(file, "w") as store:
        for layer in range(found.options["num_layers"]):
            number = f"_{layer}" if layer else ""
            two = found.options["bidirectional"]
            for i, suffix in enumerate(_suffixes(found, layer)):
                side = ("forward_layer", "backward_layer")[i] if two else ""
                group = joined("layers", f"{'bidirectional' if two else 'gru'}{number}", side)
                for index, a in enumerate(_arrays(found, suffix)):
                    store[f"{group}/cell/vars/{index}"] = a
                if _options(found)["dropout"] or _options(found)["recurrent_dropout"]:
                    seed = np.array([1 + 2 * layer + i, 0], np.uint32)
                    store[f"{group}/cell/seed_generator/vars/0"] = seed
    return file.getvalue()


def _hdf5_of_keras_2(found: Found, layers: list[dict[str, Any]]) -> bytes:
    """A whole model: its configuration in an attribute, weights under the names of variables."""
    for role in ("activation", "recurrent_activation"):
        if found.options.get(role, SAME[0]) not in SAME:
            raise ValueError(f"{role}={found.options[role]!r}: in an .h5 file it does not mean the "
                             "same to Keras 2 and Keras 3; write a .keras file")
    config = {"class_name": "Sequential", "config": {
        "name": "sequential", "layers": [_of_keras_2(layer) for layer in layers]}}
    file = io.BytesIO()
    with hdf5.h5py().File(file, "w") as store:
        store.attrs["model_config"] = json.dumps(config)
        store.attrs["keras_version"], store.attrs["backend"] = KERAS_2, "tensorflow"
        group = store.create_group("model_weights")
        group.attrs["keras_version"], group.attrs["backend"] = KERAS_2, "tensorflow"
        names = [layer["config"]["name"] for layer in layers[1:]]
        group.attrs["layer_names"] = np.array(names, "S")
        for i, name in enumerate(names):
            variables: dict[str, Array] = {}
            for suffix in _suffixes(found, i):
                side = ("forward_gru", "backward_gru")[suffix.endswith("_reverse")]
                own = joined(name, side if found.options["bidirectional"] else "", "gru_cell")
                variables |= {f"{own}/{kind}:0": a for kind, a in
                              zip(ORDER, _arrays(found, suffix), strict=False)}
            layer = group.create_group(name)
            layer.attrs["weight_names"] = np.array(list(variables), "S")
            for variable, a in variables.items():
                layer[variable] = a
    return file.getvalue()


def _of_keras_2(serialized: dict[str, Any]) -> dict[str, Any]:
    """A layer as Keras 2 describes it; Keras 3 does not find one within a layer without "module".
    """
    config = {"batch_input_shape" if key == "batch_shape" else key: value
              for key, value in serialized["config"].items()}
    return {"class_name": serialized["class_name"], "config": config}


# ---- configuration -------------------------------------------------------------------------------

def _options(found: Found) -> dict[str, Any]:
    """The arguments of a Keras layer; ValueError names what it does not have."""
    options = found.options
    if options.get("clip") is not None:
        raise ValueError(f"clip={options['clip']}: Keras has no such option")
    if options.get("dropout") and options["num_layers"] > 1:
        raise ValueError(f"dropout={options['dropout']}: the layers of a Sequential follow one "
                         "another without it; make a model with dropout=0 to write it, and put "
                         "Dropout layers between the layers in Keras")
    return {
        "units": options["hidden_size"], "use_bias": options["bias"],
        "reset_after": options.get("reset_after", True),
        "activation": keras_activation(options.get("activation", "tanh"), "activation"),
        "recurrent_activation": keras_activation(
            options.get("recurrent_activation", "sigmoid"), "recurrent_activation"),
        "dropout": options.get("input_dropout", 0.0),
        "recurrent_dropout": options.get("recurrent_dropout", 0.0),
        "return_sequences": True, "dtype": str(found.dtype)}


def _layers(found: Found) -> list[dict[str, Any]]:
    """The configuration of all layers, one after the other."""
    own, two = _options(found), found.options["bidirectional"]
    size, units = found.options["input_size"], own["units"]
    layers = [_serialized("InputLayer", name="input_layer", batch_shape=[None, None, size],
                          dtype=own["dtype"])]
    for layer in range(found.options["num_layers"]):
        name = f"gru_{layer}" if layer else "gru"
        if two:
            forward, backward = (_serialized("GRU", **own, name=f"{side}_{name}",
                                             go_backwards=side == "backward")
                                 for side in ("forward", "backward"))
            built = _serialized("Bidirectional", name=name.replace("gru", "bidirectional"),
                                merge_mode="concat", layer=forward, backward_layer=backward,
                                dtype=own["dtype"])
        else:
            reverse = found.options.get("reverse", False)
            built = _serialized("GRU", **own, name=name, go_backwards=reverse)
        inputs = size if layer == 0 else (1 + two) * units
        layers.append(built | {"build_config": {"input_shape": [None, None, inputs]}})
    if found.options.get("reverse", False) and len(layers) > 2:
        raise ValueError(f"reverse=True with num_layers={found.options['num_layers']}: in Keras, a "
                         "layer above one with go_backwards=True reads the steps in reverse")
    return layers


def _serialized(class_name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": class_name, "config": config,
            "registered_name": None}
