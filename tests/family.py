"""Cases of the whole GRU family, and what the package and reference.py make of them.

A *case* has the options of a model, its parameters, and a call as in helpers.py: time-major and
batched, in float64, but of numbers that float32 holds, too. The tests of the peers (test_torch.py,
test_keras.py, test_onnx.py) and of the package against reference.py (test_family.py) draw their
cases here.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from helpers import F64, run, same
from hypothesis import strategies as st

from gru_c import GRU, ReverseGRU, get_num_threads, reference, set_num_threads

SEQUENCES = ("x", "d_output", "mask", "resets", "output", "dx")      # time comes first


@dataclass
class Case:
    model: dict                                            # what GRU takes, but dtype and layout;
                                                           # with reverse, a ReverseGRU
    parameters: dict
    call: dict                                             # what is absent is missing

    @property
    def layers(self):
        return self.model["num_layers"]

    @property
    def directions(self):
        return 1 + self.model["bidirectional"]

    def complete(self):
        """x, h_0, d_output and d_h_n: what is absent is zeros."""
        T, N, _ = self.call["x"].shape
        H, D = self.model["hidden_size"], self.directions
        states = np.zeros((self.layers * D, N, H))
        zeros = {"h_0": states, "d_output": np.zeros((T, N, D * H)), "d_h_n": states}
        return zeros | {name: self.call[name] for name in ("x", *zeros) if name in self.call}

    def but(self, **changed):
        """The same case with other arrays in its call."""
        return Case(self.model, self.parameters, self.call | changed)


def case(steps, rows, sizes, seed=0, layers=1, bidirectional=False, bias=True, reset_after=True,
         scale=1.0, ragged=(), dropout=(), absent=(), reverse=False, **options):
    """A case of standard normal arrays, but x times `scale`, and PyTorch's initial weights.

    `ragged` names what is drawn of lengths, mask and resets, `dropout` of what multipliers are
    drawn: output, input, recurrent. `reverse` makes it one of a ReverseGRU. `options` are the
    activations and clip.
    """
    rng = np.random.default_rng(seed)
    I, H = sizes  # noqa: E741
    D = 1 + bidirectional
    names = [f"l{layer}{end}" for layer in range(layers) for end in ("", "_reverse")[:D]]
    widths = {name: I if name.startswith("l0") else D * H for name in names}
    shapes = {}
    for name in names:
        shapes |= {f"weight_ih_{name}": (3 * H, widths[name]), f"weight_hh_{name}": (3 * H, H)}
        if bias:
            shapes |= {f"bias_ih_{name}": (3 * H,), f"bias_hh_{name}": (3 * H,)}
    parameters = {name: exact(rng.uniform(-1, 1, shape) / np.sqrt(H))
                  for name, shape in shapes.items()}
    arrays = {"x": (steps, rows, I), "h_0": (layers * D, rows, H),
              "d_output": (steps, rows, D * H), "d_h_n": (layers * D, rows, H)}
    call = {name: exact(rng.standard_normal(shape) * (scale if name == "x" else 1))
            for name, shape in arrays.items() if name not in absent}
    drawn = {"lengths": rng.integers(0, steps + 1, rows), "mask": rng.random((steps, rows)) < 0.7,
             "resets": rng.random((steps, rows)) < 0.3}
    call |= {name: drawn[name] for name in ragged}
    masks = {"output": {f"output_l{i}": (steps, rows, D * H) for i in range(layers - 1)},
             "input": {f"input_{name}": (rows, widths[name]) for name in names},
             "recurrent": {f"recurrent_{name}": (rows, H) for name in names}}
    if dropout:
        call["dropout_masks"] = {name: multipliers(rng, shape) for kind in dropout
                                 for name, shape in masks[kind].items()}
    model = {"input_size": I, "hidden_size": H, "num_layers": layers, "bias": bias,
             "bidirectional": bidirectional, "reset_after": reset_after, **options}
    if reverse:
        model["reverse"] = True
    return Case(model, parameters, call)


def exact(array):
    """The nearest numbers that float32 holds, in float64."""
    return array.astype(np.float32).astype(F64)


def multipliers(rng, shape, p=0.25):
    """Of dropout: 0 or 1 / (1 - p)."""
    return exact((rng.random(shape) >= p) / (1 - p))


# ---- results ------------------------------------------------------------------------------------

def by_reference(case):
    """Results of reference.py."""
    kept = {name: value for name, value in case.model.items()
            if name in ("reset_after", "activation", "recurrent_activation", "clip", "reverse")}
    return reference.run(case.parameters, **case.call, **kept)


def build(case, dtype=F64, **options):
    """A GRU of the package with the case's parameters."""
    given = case.model | options
    gru = (ReverseGRU if given.pop("reverse", False) else GRU)(**given, dtype=dtype)
    gru.load_state_dict({name: value.astype(dtype) for name, value in case.parameters.items()})
    return gru


def by_package(case, dtype=F64, **options):
    """Results of the package."""
    return run_case(build(case, dtype, **options), case)


def run_case(gru, case):
    """Results of a GRU of the package for the call of a case; time-major, whatever the model is."""
    return arranged(run(gru, **arguments(gru, case)), gru)


def arguments(gru, case, backward=True):
    """The call of a case in dtype and layout of a model; without d_output and d_h_n for a forward.
    """
    names = [name for name in case.call if backward or name not in ("d_output", "d_h_n")]
    return arranged({name: converted(case.call[name], gru.dtype) for name in names}, gru)


def converted(value, dtype):
    """Floating-point arrays in another dtype."""
    if isinstance(value, dict):
        return {name: converted(item, dtype) for name, item in value.items()}
    return value.astype(dtype) if value.dtype == F64 else value


def arranged(arrays, gru):
    """A call or results as the model has them, and back: with batch_first the axes are swapped."""
    if not gru.batch_first:
        return arrays
    swapped = {name: value.swapaxes(0, 1) if name in SEQUENCES else value
               for name, value in arrays.items()}
    if "dropout_masks" in arrays:
        swapped["dropout_masks"] = {
            name: value.swapaxes(0, 1) if name.startswith("output") else value
            for name, value in arrays["dropout_masks"].items()}
    return swapped


def row(case, i, stop=None):
    """Row i alone; with `stop`, the steps before it alone and no lengths."""
    def alone(name, value):
        if name == "dropout_masks":
            return {key: mask[:stop, i:i + 1] if key.startswith("output") else mask[i:i + 1]
                    for key, mask in value.items()}
        if name == "lengths":
            return value[i:i + 1]
        return value[:stop if name in SEQUENCES else None, i:i + 1]

    call = {name: alone(name, value) for name, value in case.call.items()
            if stop is None or name != "lengths"}
    return Case(case.model, case.parameters, call)


def row_of(results, i, stop=None):
    """Row i, up to step `stop`, of what results have a row for each row of the batch."""
    return {name: value[:stop if name in SEQUENCES else None, i:i + 1]
            for name, value in results.items() if name in ("output", "h_n", "dx", "dh_0")}


def ignored(case):
    """Where x (T, N) and where d_output (T, N, D*H) do not count."""
    T, N, _ = case.call["x"].shape
    rows, shown = np.zeros((T, N), bool), np.zeros((case.directions, T, N), bool)
    for direction in range(case.directions):
        reverse = bool(direction) or case.model.get("reverse", False)
        for t, _, counting, visible in reference.schedule(T, N, reverse, *(
                case.call.get(name) for name in ("lengths", "mask", "resets"))):
            rows[t], shown[direction, t] = counting, visible
    return ~rows, ~np.repeat(np.moveaxis(shown, 0, 2), case.model["hidden_size"], axis=2)


@contextmanager
def threads(count):
    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


# ---- what hypothesis draws ----------------------------------------------------------------------

# All with parameters other than the defaults, too.
BOUNDED = ("sigmoid", "tanh", {"name": "scaled_tanh", "alpha": 1.2, "beta": 0.7}, "scaled_tanh",
           "softsign", "hard_sigmoid", {"name": "hard_sigmoid", "alpha": 0.2, "beta": 0.5},
           {"name": "hard_sigmoid", "alpha": 1.0, "beta": 0.1})
UNBOUNDED = ("relu", "affine", {"name": "affine", "alpha": 0.7, "beta": 0.2}, "leaky_relu",
             {"name": "leaky_relu", "alpha": 0.3}, {"name": "thresholded_relu", "alpha": 0.2},
             "thresholded_relu", "elu", {"name": "elu", "alpha": 0.5}, "softplus", "linear")
ACTIVATIONS = BOUNDED + UNBOUNDED


def title(activation):
    """Of an activation, as the id of a test."""
    return activation if isinstance(activation, str) else " ".join(map(str, activation.values()))


booleans = st.booleans()


def some_of(*names):
    """Any of them, all more often than by chance."""
    return st.lists(st.sampled_from(names), unique=True) | st.just(names)


@st.composite
def cases(draw, ragged=("lengths", "mask", "resets"), dropout=("output", "input", "recurrent"),
          activation=True, least_hidden=1, reset_after=booleans, reverse=False):
    """Any case; with `reverse`, of a ReverseGRU, too. In float32 let it have three units or more
    (test_numerics.models says why). Where z has no bounds, the state would be squared in each step,
    and overflow: clip holds it.
    """
    options = {}
    if activation and draw(booleans):
        clip = draw(st.none() | st.sampled_from([0.3, 2.0]))
        options = {
            "activation": draw(st.sampled_from(ACTIVATIONS)), "clip": clip,
            "recurrent_activation": draw(st.sampled_from(ACTIVATIONS if clip else BOUNDED))}
    bidirectional = draw(booleans)
    return case(
        draw(st.integers(1, 7)), draw(st.integers(1, 9)),
        (draw(st.integers(1, 33)), draw(st.integers(least_hidden, 33))),
        seed=draw(st.integers(0, 999)), layers=draw(st.integers(1, 3)),
        bidirectional=bidirectional, bias=draw(booleans),
        reverse=reverse and not bidirectional and draw(booleans),
        reset_after=draw(reset_after), scale=0.5 if options else 1.0,
        ragged=draw(some_of(*ragged)) if ragged else (),
        dropout=draw(some_of(*dropout)) if dropout else (),
        absent=draw(some_of("h_0", "d_output", "d_h_n")), **options)


def assert_same_without_and_into(gru, call, output, h_n):
    """The results of a call without its output, and into the caller's arrays, which have gaps."""
    nothing, state = gru(**call, return_output=False)
    assert nothing is None
    out, h_n_out = (np.full(a.shape[::-1], np.nan, a.dtype).T for a in (output, h_n))
    found = gru(**call, out=out, h_n_out=h_n_out)
    assert found[0] is out
    assert found[1] is h_n_out
    same((state, out, h_n_out), (h_n, output, h_n))
