"""The parameters of one direction of one layer: names, shapes, first values, copies."""

import numpy as np

NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def shapes(input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple]:
    """Names and shapes."""
    rows = 3 * hidden_size
    found = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
    if bias:
        found |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    return found


def initial(shapes: dict[str, tuple], hidden_size: int, dtype, rng) -> dict[str, np.ndarray]:
    """Parameters drawn from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch does."""
    bound = 1.0 / np.sqrt(hidden_size)
    return {name: rng.uniform(-bound, bound, shape).astype(dtype)
            for name, shape in shapes.items()}


def frozen(a: np.ndarray) -> np.ndarray:
    """A copy that nobody can write to: its memory is a `bytes`."""
    return np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape)
