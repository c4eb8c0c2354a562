"""Configurations of Keras layers: which hold a GRU, and what that means in arguments of a `GRU`.

A configuration is JSON, ``{"class_name": ..., "config": {...}}``, of Keras 2 or 3. Nothing of it is
executed. In Keras, a model is a layer, and may lie in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gru_c import _activations, _checks

DEEPEST = 64                                               # models in models

# Activations that Keras names, with the parameters that differ from ours.
FUNCTIONS: dict[str, dict[str, float]] = {
    "sigmoid": {}, "tanh": {}, "relu": {}, "softsign": {}, "softplus": {}, "linear": {}, "elu": {},
    "leaky_relu": {"alpha": 0.2}}


@dataclass(frozen=True)
class Node:
    """A layer with a GRU.

    name
        Its own name after those of the models and wrappers that it is in: ``"encoder/gru"``.
    group
        Where Keras 3 stores it: ``"layers/sequential/layers/gru"``.
    alone
        False of one direction of a `Bidirectional`, which is a node, too.
    """

    name: str
    group: str
    class_name: str
    config: dict[str, Any]
    alone: bool = True


@dataclass(frozen=True)
class Settings:
    """What a configuration tells of a GRU.

    groups
        Where Keras 3 stores the weights of each part, below the layer's group. Parts are the two
        directions, or the layers of stacked cells, or the one that there is.
    hints
        A name that Keras 2 gives the weights of each part, or "".
    """

    options: dict[str, Any]
    units: int
    bias: bool
    reset_after: bool | None
    groups: tuple[str, ...]
    hints: tuple[str, ...]
    bidirectional: bool = False
    own: dict[str, Any] = field(default_factory=dict)


# ---- which layers hold a GRU ---------------------------------------------------------------------

def nodes(serialized: Any, name: str = "", group: str = "", depth: int = 0) -> Iterator[Node]:
    """The layers with a GRU in a layer or model, in order."""
    if depth > DEEPEST:
        raise ValueError(f"models are nested more than {DEEPEST} deep")
    class_name, config = opened(serialized)
    layers = config.get("layers")
    inner = config.get("layer")
    if _is_gru(serialized):
        yield Node(name, group, class_name, config)
    elif class_name == "Bidirectional" and not _is_foreign(serialized) and _is_gru(inner):
        yield Node(name, group, class_name, config)
        for side, direction in zip(("forward", "backward"), directions(config), strict=True):
            own = own_name(direction).removeprefix(f"{side}_")
            yield Node(joined(name, f"{side}_{own}"), joined(group, f"{side}_layer"),
                       *opened(direction), alone=False)
    elif isinstance(layers, list):
        for child, stored in zip(layers, container_names(layers), strict=True):
            yield from nodes(child, joined(name, own_name(child)),
                             joined(group, "layers", stored), depth + 1)
    elif isinstance(inner, dict):                          # TimeDistributed and other wrappers
        yield from nodes(inner, joined(name, own_name(inner)), joined(group, "layer"), depth + 1)


def stack(serialized: Any) -> list[str]:
    """The names of all layers of a Sequential that holds nothing but GRUs; else none."""
    class_name, config = opened(serialized)
    layers = config.get("layers")
    if class_name != "Sequential" or not isinstance(layers, list):
        return []
    layers = [layer for layer in layers if opened(layer)[0] != "InputLayer"]
    found = [node for node in nodes(serialized) if node.alone]
    names = [own_name(layer) for layer in layers]
    whole = all(node.config.get("return_sequences", _inner(node).get("return_sequences"))
                for node in found[:-1])
    return names if whole and [node.name for node in found] == names else []


def _inner(node: Node) -> dict[str, Any]:
    """The configuration of the layer in a `Bidirectional`."""
    return opened(node.config.get("layer"))[1]


def opened(serialized: Any) -> tuple[str, dict[str, Any]]:
    """Class and configuration; empty for what is no layer."""
    if not isinstance(serialized, dict):
        return "", {}
    class_name, config = serialized.get("class_name"), serialized.get("config")
    if isinstance(config, list):                           # a Sequential before Keras 2.2.3
        config = {"layers": config}
    if not isinstance(class_name, str) or not isinstance(config, dict):
        return "", {}
    return class_name, config


def own_name(serialized: Any) -> str:
    """The name of a layer."""
    name = opened(serialized)[1].get("name")
    return name if isinstance(name, str) else ""


def joined(*names: str) -> str:
    return "/".join(name for name in names if name)


def container_names(layers: list[Any]) -> list[str]:
    """The names by which Keras stores layers of one list: of their classes, and numbered."""
    counts: dict[str, int] = {}
    names = []
    for layer in layers:
        name = snake_case(opened(layer)[0])
        counts[name] = counts.get(name, -1) + 1
        names.append(f"{name}_{counts[name]}" if counts[name] else name)
    return names


def snake_case(class_name: str) -> str:
    """``"TimeDistributed"`` as ``"time_distributed"``, ``"GRU"`` as ``"gru"``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def directions(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two layers of a `Bidirectional`; the second is the first in reverse, if it is absent."""
    forward, backward = config["layer"], config.get("backward_layer")
    if not isinstance(backward, dict):
        class_name, own = opened(forward)
        name = own_name(forward).removeprefix("forward_")
        backward = {"class_name": class_name, "config": own | {
            "name": name, "go_backwards": not own.get("go_backwards", False)}}
    return forward, backward


def _is_gru(serialized: Any) -> bool:
    class_name, config = opened(serialized)
    if _is_foreign(serialized):
        return False
    if class_name != "RNN":
        return class_name in ("GRU", "CuDNNGRU", "GRUCell")
    return all(opened(cell)[0] == "GRUCell" and not _is_foreign(cell) for cell in _cells(config))


def _is_foreign(serialized: Any) -> bool:
    """Whether a layer is of a class outside Keras, which may have the name of one in it."""
    return isinstance(serialized, dict) and serialized.get("registered_name") is not None


def _cells(config: Mapping[str, Any]) -> list[Any]:
    """The cells of an `RNN`: one, or those that are stacked."""
    class_name, own = opened(config.get("cell"))
    cells = own.get("cells") if class_name == "StackedRNNCells" else None
    return cells if isinstance(cells, list) and cells else [config.get("cell")]


# ---- what a configuration means ------------------------------------------------------------------

def settings(class_name: str, config: dict[str, Any], version: int | None,
             given: Mapping[str, Any], name: str = "") -> Settings:
    """What the configuration of a node tells, but for options that are `given`.

    `version` is the major version of Keras, or None; `name` that of the node. ValueError names what
    a GRU does not have.
    """
    if class_name != "Bidirectional":
        return _one_direction(class_name, config, version, given)
    forward, backward = (_one_direction(*opened(layer), version, given)
                         for layer in directions(config))
    own, other = (own_name(layer) for layer in directions(config))
    sides = (f"forward_{own.removeprefix('forward_')}",
             f"backward_{other.removeprefix('backward_')}")
    advice = (f"read the two directions by name, {joined(name, sides[0])!r} and "
              f"{joined(name, sides[1])!r} (of a layer object: .forward_layer and "
              ".backward_layer), and merge what they give")
    if config.get("merge_mode", "concat") != "concat":
        raise ValueError(f"merge_mode={config['merge_mode']!r} of a Bidirectional, where a GRU "
                         f"concatenates its directions; {advice}")
    if forward.options["reverse"] or not backward.options["reverse"]:
        raise ValueError("the forward layer of a Bidirectional has go_backwards=True, so that it "
                         f"gives the last step first; {advice}, each output[:, ::-1]")
    if len(forward.groups) > 1 or len(backward.groups) > 1:
        raise ValueError("a Bidirectional of stacked cells joins the directions after the last "
                         f"layer, a GRU after each; {advice}")
    if forward.own != backward.own:
        differing = [key for key in forward.own if forward.own[key] != backward.own[key]]
        raise ValueError(f"the two layers of a Bidirectional differ in {', '.join(differing)}; "
                         f"{advice}")
    groups = (joined("forward_layer", *forward.groups), joined("backward_layer", *backward.groups))
    return Settings(forward.options | {"reverse": False}, forward.units, forward.bias,
                    forward.reset_after, groups, ("forward_", "backward_"), True,
                    forward.own)


def _one_direction(class_name: str, config: dict[str, Any], version: int | None,
                   given: Mapping[str, Any]) -> Settings:
    """The same of a layer of one direction."""
    if class_name == "RNN":
        cells = _cells(config)
        stacked = [joined("cell/cells", name) for name in container_names(cells)]
        groups = tuple(stacked if opened(config.get("cell"))[0] != "GRUCell" else ["cell"])
        hints = tuple(map(own_name, cells)) if len(cells) > 1 else ("",)
        configs = [opened(cell)[1] for cell in cells]
    else:
        groups, hints, configs = ("cell" if class_name == "GRU" else "",), ("",), [config]
    own = [_of_a_cell(class_name, each, version, given) for each in configs]
    for key in own[0]:
        if any(each[key] != own[0][key] for each in own):
            raise ValueError(f"the stacked cells differ in {key}; the layers of a GRU are alike")
    options = {key: value for key, value in own[0].items() if key not in ("units", "use_bias")}
    options["reverse"] = _value(config, "go_backwards", False)
    if class_name != "GRUCell":
        options["batch_first"] = not _value(config, "time_major", False)
    return Settings(options, own[0]["units"], own[0]["use_bias"], options.pop("reset_after"),
                    groups, hints, own=own[0] | {"batch_first": options.get("batch_first")})


def _of_a_cell(class_name: str, config: dict[str, Any], version: int | None,
               given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a cell that lead to the same numbers."""
    found: dict[str, Any] = {"units": _value(config, "units", 0),
                             "use_bias": _value(config, "use_bias", True)}
    if found["units"] < 1:
        raise ValueError("the configuration has no units")
    reset_after = True if class_name == "CuDNNGRU" else config.get("reset_after")
    found["reset_after"] = given.get("reset_after", reset_after)
    for key, default in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        found[key] = given[key] if key in given else activation(
            config.get(key, default), key, version)
    for key, ours in (("dropout", "input_dropout"), ("recurrent_dropout", "recurrent_dropout")):
        found[ours] = given[ours] if ours in given else _checks.probability(
            _value(config, key, 0.0), f"{key} of the configuration")
    return found


def _value(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """A value of the type of its default, which also stands for an absent one or null."""
    value = config.get(key)
    if value is None:
        return default
    kinds = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, kinds) or (isinstance(value, bool) != isinstance(default, bool)):
        raise ValueError(f"{key} of the configuration is {value!r}")
    return value


# ---- activations ---------------------------------------------------------------------------------

def activation(value: Any, role: str, version: int | None) -> str | dict[str, Any]:
    """An argument of a GRU from a name or a serialized object."""
    if value is None:                                      # Keras: none is applied
        return "linear"
    class_name, config = opened(value)
    registered = value.get("registered_name") if isinstance(value, dict) else None
    name = value.get("config") if isinstance(value, dict) else value
    if class_name == "Activation":
        return activation(config.get("activation"), role, version)
    if class_name:
        found = _of_a_layer(class_name, config)
    elif registered in (None, "function", name) and isinstance(name, str):
        found = _of_a_function(name, role, version)
    else:
        found = None
    if found is None:
        raise ValueError(f"{role} is {str(value)[:200]!a}, which a GRU does not have; give "
                         f"{role}=... to read it with another")
    return _activations.activation(found, role).argument


def _of_a_function(name: str, role: str, version: int | None) -> str | dict[str, Any] | None:
    if name == "hard_sigmoid":
        if version is None:
            raise ValueError(f"{role} is hard_sigmoid, which is 0.2 x + 0.5 in Keras 2 and x / 6 + "
                             f"0.5 in Keras 3, and the version is not known; give {role}=..., "
                             "{'name': 'hard_sigmoid', 'alpha': 0.2} for Keras 2")
        return {"name": name, "alpha": 0.2} if version < 3 else name
    if name not in FUNCTIONS:
        return None
    return {"name": name, **FUNCTIONS[name]} if FUNCTIONS[name] else name


def _of_a_layer(class_name: str, config: Mapping[str, Any]) -> str | dict[str, Any] | None:
    """A layer that stands for its function."""
    if class_name == "LeakyReLU":
        alpha = _value(config, "negative_slope", _value(config, "alpha", 0.3))
        return {"name": "leaky_relu", "alpha": alpha}
    if class_name == "ELU":
        return {"name": "elu", "alpha": _value(config, "alpha", 1.0)}
    if class_name == "ThresholdedReLU":
        return {"name": "thresholded_relu", "alpha": _value(config, "theta", 1.0)}
    if class_name == "ReLU" and config.get("max_value") is None:
        slope, threshold = (_value(config, key, 0.0) for key in ("negative_slope", "threshold"))
        if not threshold:
            return {"name": "leaky_relu", "alpha": slope} if slope else "relu"
        return None if slope else {"name": "thresholded_relu", "alpha": threshold}
    return None


def keras_activation(argument: str | Mapping[str, Any], role: str) -> Any:
    """What Keras 3 takes for an activation of ours."""
    options = {"name": argument} if isinstance(argument, str) else dict(argument)
    name, alpha = options["name"], options.get("alpha")
    if name in FUNCTIONS and ((alpha is None and name != "leaky_relu")
                              or alpha == FUNCTIONS[name].get("alpha")):
        return name
    if name == "hard_sigmoid" and argument == name:
        return name
    layers = {"leaky_relu": ("LeakyReLU", {"negative_slope": 0.01 if alpha is None else alpha}),
              "elu": ("ELU", {"alpha": alpha}),
              "thresholded_relu": ("ReLU", {"threshold": 1.0 if alpha is None else alpha})}
    if name not in layers:
        raise ValueError(f"{role}={argument!r}: Keras 3 has no such activation")
    class_name, config = layers[name]
    return {"module": "keras.layers", "class_name": class_name, "config": config,
            "registered_name": None}
