"""Rounding errors of results and gradients against a more precise truth: no larger than PyTorch's.

PyTorch's errors are in fixtures/torch_rounding.json; `python -m bench.accuracy --save` wrote them,
and measures all shapes of the benchmark, of which these tests take the smaller ones.
"""

import json
import platform
from pathlib import Path

import numpy as np
import pytest
from helpers import in_use

from gru_c import _core

accuracy = pytest.importorskip("bench.accuracy", reason="bench/ is not here")

TORCH = json.loads((Path(__file__).parent / "fixtures" / "torch_rounding.json").read_text())
MOST_FLOP = {"float32": 3e8, "float64": 1e7}       # of a forward: the truth of float64 is slow


def shapes(dtype):
    def flop(T, N, I, H):  # noqa: E741
        return 6 * T * N * H * (I + H)

    return [shape for shape in accuracy.all_shapes() if flop(*shape) <= MOST_FLOP[dtype]]


def ratios(make, sizes, draws):
    name = (f"rows {sizes[0]},{sizes[1]} {sizes[2]}" if make is accuracy.many_rows
            else accuracy.name_of(*sizes))
    found = accuracy.errors(make, sizes, draws, {"gru_c": accuracy.ours})["gru_c"]
    return {key: error / TORCH[name][key] for key, error in found.items()}


@pytest.fixture(autouse=True)
def own_products():
    if in_use["engine"] == "blas":
        pytest.skip("BLAS makes no promise")


@pytest.mark.parametrize("dtype", accuracy.DTYPES)
def test_errors_are_not_above_pytorchs(dtype):
    found = {(shape, name): ratio for shape in shapes(dtype)
             for name, ratio in ratios(accuracy.case, (shape, dtype),
                                       accuracy.draws(shape)).items()}
    assert len(found) >= 42
    worst = max(found, key=found.get)
    assert found[worst] <= accuracy.MOST_RATIO, f"{worst}: {found[worst]:.2f} times PyTorch's"
    fused = _core.isa != "baseline" or platform.machine().lower() in ("arm64", "aarch64")
    mean = accuracy.geometric_mean(found.values())
    assert mean <= (accuracy.MOST_MEAN if fused else 1.0)      # a fused multiply-add rounds once


@pytest.mark.parametrize("steps, rows", accuracy.MANY_ROWS)
def test_weight_gradients_of_many_rows(steps, rows):
    found = ratios(accuracy.many_rows, (steps, rows, "float32"), 1)
    weights = {name: ratio for name, ratio in found.items() if name.startswith(("dw", "db"))}
    assert max(weights.values()) <= accuracy.MOST_RATIO, weights


@pytest.mark.parametrize("dtype", accuracy.DTYPES)
def test_the_truth_has_more_digits(dtype):
    arrays = accuracy.case((4, 3, 5, 6), dtype)
    for name, value in accuracy.truth(arrays).items():
        assert np.finfo(value.dtype).eps < np.finfo(dtype).eps / 1000, name
