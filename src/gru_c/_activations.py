"""The activations of a model: names, parameters, and what the core is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from gru_c import _checks

if TYPE_CHECKING:
    from gru_c._types import ActivationLike

# Names, their parameters and the defaults of these.
DEFAULTS: dict[str, dict[str, float]] = {
    "sigmoid": {},
    "tanh": {},
    "relu": {},
    "softsign": {},
    "softplus": {},
    "linear": {},
    "hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "affine": {"alpha": 1.0, "beta": 0.0},
    "leaky_relu": {"alpha": 0.01},
    "thresholded_relu": {"alpha": 1.0},
    "scaled_tanh": {"alpha": 1.0, "beta": 1.0},
    "elu": {"alpha": 1.0},
}
NOT_NEGATIVE = ("leaky_relu", "elu")                       # alpha, else f(x) does not tell f'(x)

# The functions of the core, in the order of gates.h; the other names are cases of these.
FUNCTIONS = ("sigmoid", "hard_sigmoid", "scaled_tanh", "affine", "thresholded_relu", "leaky_relu",
             "elu", "softsign", "softplus")
CASES = {"tanh": ("scaled_tanh", 1.0, 1.0), "relu": ("thresholded_relu", 0.0, 0.0),
         "linear": ("affine", 1.0, 0.0)}

# function, alpha, beta
CoreActivation: TypeAlias = tuple[int, float, float]


@dataclass(frozen=True)
class Activation:
    """An activation: its name, and its parameters or None where it has none."""

    name: str
    alpha: float | None = None
    beta: float | None = None

    @property
    def argument(self) -> str | dict[str, Any]:
        """What makes it as an argument: the name, or a dict where a parameter is no default."""
        own = {key: getattr(self, key) for key in DEFAULTS[self.name]}
        return self.name if own == DEFAULTS[self.name] else {"name": self.name, **own}

    @property
    def core(self) -> CoreActivation:
        """What the core is told."""
        name, alpha, beta = CASES.get(self.name, (self.name, self.alpha or 0.0, self.beta or 0.0))
        return FUNCTIONS.index(name), alpha, beta


SIGMOID, TANH = Activation("sigmoid"), Activation("tanh")


def activation(value: ActivationLike, argument: str) -> Activation:
    """From a name, a dict, or the attribute of another model."""
    if isinstance(value, Activation):
        value = {key: own for key, own in vars(value).items() if own is not None}
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise TypeError(f"{argument} should be a name or a dict with a name, alpha and beta, "
                        f"got: {type(value).__name__}")
    given = dict(value)
    if "name" not in given:
        raise ValueError(f"{argument} has no 'name'")
    name = given.pop("name")
    if not isinstance(name, str) or name not in DEFAULTS:
        raise ValueError(f"unknown {argument} {name!r}, expected one of {', '.join(DEFAULTS)}")
    named = f"{argument} {name!r}"
    unknown = [key for key in given if key not in DEFAULTS[name]]
    if unknown:
        raise ValueError(f"{named} has no {', '.join(map(repr, unknown))}, its parameters are: "
                         f"{', '.join(DEFAULTS[name]) or 'none'}")
    numbers = {key: _checks.finite(number, f"{key} of {named}") for key, number in given.items()}
    if name in NOT_NEGATIVE and numbers.get("alpha", 0.0) < 0:
        raise ValueError(f"alpha of {named} must not be negative, got {numbers['alpha']}: backward "
                         "reads the derivative from the result")
    return Activation(name, **DEFAULTS[name] | numbers)


def clip(value: float | None) -> float | None:
    """None or a positive number."""
    if value is None:
        return None
    number = _checks.finite(value, "clip")
    if number <= 0:
        raise ValueError(f"clip must be None or a positive number, got {value!r}")
    return number


def core_arguments(model: Any) -> tuple[CoreActivation, CoreActivation, float] | None:
    """What a Layer takes: the activations of r and z and of n, and clip. None: the defaults."""
    if (model.recurrent_activation, model.activation, model.clip) == (SIGMOID, TANH, None):
        return None
    return (model.recurrent_activation.core, model.activation.core,
            math.inf if model.clip is None else model.clip)


def shown(model: Any) -> str:
    """What the repr of a model adds: what is not the default."""
    text = ""
    if model.activation != TANH:
        text += f", activation={model.activation.argument!r}"
    if model.recurrent_activation != SIGMOID:
        text += f", recurrent_activation={model.recurrent_activation.argument!r}"
    if model.clip is not None:
        text += f", clip={model.clip}"
    return text
