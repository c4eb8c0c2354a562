"""reference.py by finite differences, and by itself.

PyTorch, Keras and ONNX hold it, too (test_torch.py, test_keras.py, test_onnx.py); what none of them
can do, resets and combinations of options, is held here alone.
"""

import numpy as np
import pytest
from family import ACTIVATIONS, by_reference, case, row, row_of, title
from helpers import differences, error

from gru_c import reference

EVERYTHING = {"layers": 2, "bidirectional": True, "ragged": ("lengths", "mask", "resets"),
              "dropout": ("output", "input", "recurrent"), "clip": 1.0}


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=title)
def test_derivatives(activation):
    """Of all activations, off their kinks, with clip and without."""
    a = np.linspace(-4, 4, 401) + 0.0043
    for clip in (None, 1.5):
        y, slope = reference.gate(a, activation, clip)
        above, below = (reference.gate(a + step, activation, clip)[0] for step in (1e-6, -1e-6))
        assert np.abs(slope - (above - below) / 2e-6).max() < 1e-9
        assert np.isfinite(y).all()


@pytest.mark.parametrize("options", [
    {"ragged": ("resets",)},
    {"ragged": ("resets",), "bidirectional": True},
    {"ragged": ("lengths", "resets"), "layers": 2},
    {"ragged": ("mask", "resets"), "dropout": ("recurrent",)},
    EVERYTHING,
    EVERYTHING | {"activation": "softsign",
                  "recurrent_activation": {"name": "hard_sigmoid", "alpha": 0.2}},
], ids=str)
def test_finite_differences(options, reset_after):
    drawn = case(4, 3, (2, 3), reset_after=reset_after, **options)
    found = by_reference(drawn)

    def loss(x, h_0, **parameters):
        drawn.parameters = parameters
        results = by_reference(drawn.but(x=x, h_0=h_0))
        return (np.vdot(results["output"], drawn.call["d_output"])
                + np.vdot(results["h_n"], drawn.call["d_h_n"]))

    arrays = {"x": drawn.call["x"], "h_0": drawn.call["h_0"], **drawn.parameters}
    wanted = differences(loss, {name: array.copy() for name, array in arrays.items()})
    for name, value in wanted.items():
        assert error(found[f"d{name}" if name in ("x", "h_0") else name], value) <= 1e-7, name


def test_rows_are_independent(reset_after):
    """A row alone, and cut at its end instead of having a length."""
    drawn = case(5, 8, (2, 3), reset_after=reset_after, **EVERYTHING)
    results = by_reference(drawn)
    for i, stop in enumerate(drawn.call["lengths"]):
        for end in (None, stop) if stop else (None,):
            wanted = row_of(results, i, end)
            found = by_reference(row(drawn, i, end))
            for name, value in wanted.items():
                assert error(found[name], value) <= 1e-14, name


def test_a_reset_begins_anew():
    """Between its resets, a row is as many sequences; what stands before has no gradient."""
    drawn = case(6, 2, (2, 3))
    resets = np.zeros((6, 2), bool)
    resets[[0, 4]] = True
    results = by_reference(drawn.but(resets=resets))
    for part in (slice(0, 4), slice(4, 6)):
        alone = {name: drawn.call[name][part] for name in ("x", "d_output")}
        last = {"d_h_n": drawn.call["d_h_n"] if part.stop == 6 else None}
        found = by_reference(drawn.but(h_0=None, **alone, **last))
        for name in ("output", "dx"):
            assert error(results[name][part], found[name]) <= 1e-14
    assert not results["dh_0"].any()


def test_a_row_of_no_steps(reset_after):
    """Neither lengths nor masks leave it any: the state passes it, in both directions of time."""
    drawn = case(4, 2, (2, 3), bidirectional=True, reset_after=reset_after)
    mask = np.array([[False, True]] * 4)
    for options in ({"lengths": np.array([0, 4])}, {"mask": mask}):
        results = by_reference(drawn.but(**options))
        assert (results["h_n"][:, 0] == drawn.call["h_0"][:, 0]).all()
        assert (results["dh_0"][:, 0] == drawn.call["d_h_n"][:, 0]).all()
        assert not results["output"][:, 0].any()
        assert not results["dx"][:, 0].any()
