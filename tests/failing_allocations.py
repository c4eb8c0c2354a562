"""Each allocation of a call fails in turn; after each MemoryError the model is as it was.

`test_memory.py` runs this file in an interpreter of its own, once for each kind of model, with
`c/failing_malloc.c` in LD_PRELOAD. What does not hold is printed, one line each.

For the n-th allocation of a call, n = 1, 2, ..., a model is made anew and brought to a known state.
If the call raises MemoryError, all that can be read is as it was before, a backward of the forward
before gives what it would have given, and the same call asked again gives its results. A call may
also succeed, where NumPy does without the memory. Any other exception is a failure.

With PYTHONMALLOC=malloc the allocations of Python objects are among them. The kind "closures" only
finds out whether the interpreter itself stands that.

NumPy keeps freed arrays of less than 1,024 bytes, and small arrays take their memory from there:
most arrays here are larger.
"""

import copy
import ctypes
import functools
import gc
import sys

import numpy as np
from helpers import F32, F64, assert_same_array, normal

from gru_c import GRU, GRUCell

MOST = 5000                                                # allocations of a call
N, I, H = 4, 72, 96                                        # noqa: E741

left = ctypes.c_long()                                     # until the next fails; the library's


def find_left():
    """The number in the library that LD_PRELOAD brought, of this thread."""
    address = ctypes.PyDLL(None).gru_allocations_left
    address.restype = ctypes.c_void_p
    return ctypes.c_long.from_address(address())


# ---- one call that fails -------------------------------------------------------------------------

def attempt(call, n):
    """(how it ended, result, exception) of a call whose n-th allocation fails."""
    ended = result = error = None
    left.value = n                                         # neither this nor `left.value = 0`
    try:                                                   # allocates
        result = call()
    except MemoryError:                                    # not kept: it holds what it went through
        ended = "failed"
    except BaseException as caught:
        ended, error = "broken", caught
    fired = left.value <= 0
    left.value = 0
    if not fired and ended is None:
        return "finished", result, None
    if not fired:
        return "broken", None, error
    return ended or "succeeded", result, error


def readable(read):
    """What a property gives, or the words of its RuntimeError."""
    try:
        return read()
    except RuntimeError as error:
        return str(error)


def observe(model):
    """All that can be read from a model, copied; the reader keeps nothing of the model's."""
    found = {"training": str(model.training)}
    found |= {name: value.copy() for name, value in model.state_dict().items()}
    grads = readable(lambda: {f"d{name}": value.copy() for name, value in model.grads.items()})
    found |= grads if isinstance(grads, dict) else {"grads": grads}
    for name in ("x", "hidden", "r", "z", "n") if isinstance(model, GRUCell) else ():
        found[name] = readable(lambda name=name: getattr(model, name))
    return found


def probe(model, shape):
    """What the saved forward is good for: the results of its backward, and the gradients."""
    results = readable(lambda: model.backward(normal(*shape, dtype=model.dtype, seed=7)))
    if isinstance(results, str):
        return {"backward": results} | observe(model)
    return dict(zip(("dx", "dh"), results, strict=True)) | observe(model)


def named(result):
    """The arrays that a call returned, by their places."""
    if result is None:
        return {}
    results = result if isinstance(result, tuple) else (result,)
    return {f"result {place}": np.array(value) for place, value in enumerate(results)
            if isinstance(value, np.ndarray)}


def difference(got, want, exact=False):
    """The first name under which two dicts differ, or None."""
    for name in want | got:
        if name not in got or name not in want or type(got[name]) is not type(want[name]):
            return name
        if isinstance(want[name], str):
            if got[name] != want[name]:
                return name
        elif exact:
            if got[name].shape != want[name].shape or got[name].tobytes() != want[name].tobytes():
                return name
        else:
            try:
                assert_same_array(got[name], want[name], name)
            except AssertionError:
                return name
    return None


class Case:
    """A call of a model in a known state.

    `make()` gives the model in that state. `call(model)` gives a function without arguments, and
    the arrays that must not change if it fails. Forwards before and after the call have outputs of
    the shapes `before` and `after`.
    """

    def __init__(self, make, call, before, after=None):
        self.make, self.call, self.before, self.after = make, call, before, after or before

    def expect(self):
        """Without a failure: everything before the call and after it. The first is a warm-up."""
        for _ in range(2):
            self.was = observe(self.make())
            self.was_good_for = probe(self.make(), self.before)
            model = self.make()
            function, _ = self.call(model)
            self.result = named(function())
            self.is_now = observe(model)
            self.good_for = probe(model, self.after)

    def finished(self, model, result):
        """What is wrong after the call, or None."""
        wrong = difference(named(result), self.result) or difference(observe(model), self.is_now)
        return wrong or difference(probe(model, self.after), self.good_for)

    def asked_again(self, model, function):
        """What is wrong when the call is made once more, or None."""
        try:
            return self.finished(model, function())
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def fail(self, n, again):
        """(whether the call made an n-th allocation, all that is wrong when that fails).

        A call that raised is asked `again`, or the forward before gets its backward.
        """
        model = self.make()
        function, kept = self.call(model)
        copies = {place: value.copy() for place, value in enumerate(kept)}
        ended, result, error = attempt(function, n)
        if ended == "broken":
            return True, [f"{type(error).__name__}: {error}"]
        if ended != "failed":
            wrong = self.finished(model, result)
            return ended == "succeeded", [f"no exception, {wrong} is wrong"] if wrong else []
        problems = {
            "not as before": difference(observe(model), self.was, exact=True),
            "argument was written to": difference(dict(enumerate(kept)), copies, exact=True),
        }
        if again:
            problems["asked again, wrong"] = self.asked_again(model, function)
        else:
            problems["backward of the forward before, wrong"] = difference(
                probe(model, self.before), self.was_good_for)
        return True, [f"{what}: {name}" for what, name in problems.items() if name is not None]

    def run(self, name):
        """Fail each allocation in turn, and print what is wrong."""
        self.expect()
        wrong, needed, n = {}, True, 0
        while needed and n < MOST:
            n += 1
            for again in (True, False):
                needed, problems = self.fail(n, again)
                for problem in problems:
                    wrong.setdefault(problem, []).append(n)
        if needed:
            wrong["it never ends"] = [n]
        print(f"{name}: {n - 1} allocations", file=sys.stderr)
        for problem, places in wrong.items():
            print(f"{name}: {problem}, allocation {', '.join(map(str, sorted(set(places))))} "
                  f"of {n - 1}", flush=True)


# ---- states and calls ----------------------------------------------------------------------------

def trained(model, x, h=None, pending=True):
    """A model with gradients, and with a forward that waits for its backward."""
    def make():
        made = model()
        output = made(x + x)
        made.backward(*(np.cos(output[:1]) if isinstance(output, tuple) else [np.cos(output)]))
        if pending:
            made(x, h)
        return made
    return make


def evaluated(make):
    return lambda: make().eval()


def method(name, *arguments):
    """A call of a method; its arrays stay as they are."""
    arrays = [a for a in arguments if isinstance(a, np.ndarray)]
    return lambda model: (functools.partial(getattr(model, name), *arguments), arrays)


forward = functools.partial(method, "forward")
backward = functools.partial(method, "backward")
step = functools.partial(method, "step")


def backward_with_gradients_held(*arguments):
    """The caller has the gradients of before: they stay as they are."""
    def call(model):
        function = functools.partial(model.backward, *arguments)
        function.held = model.grads                        # nothing is allocated after the call
        return function, list(function.held.values())
    return call


def in_place(name, x, h):
    """A step whose result goes over its hidden state."""
    def call(model):
        state = h.copy()
        return functools.partial(getattr(model, name), x, state, out=state), [x, state]
    return call


def mode(name):
    return lambda model: (lambda: getattr(model, name)() and None, [])


def load(model):
    new = {name: np.sin(value) for name, value in model.state_dict().items()}
    return lambda: model.load_state_dict(new), list(new.values())


def assign(name):
    def call(model):
        new = np.sin(getattr(model, name))
        return lambda: setattr(model, name, new), [new]
    return call


# ---- kinds of models -----------------------------------------------------------------------------

def cell_cases(model, x, h, delta):
    """Of a GRUCell."""
    fresh, ready = model, trained(model, x, h)
    shape = delta.shape
    longer = np.concatenate([x, x]) if x.ndim == 2 else np.stack([x, x])
    yield "first forward", Case(fresh, forward(x, h), shape)
    yield "forward", Case(ready, forward(x + 1, h), shape)
    yield "forward of other rows", Case(ready, forward(longer), shape, (len(longer), shape[-1]))
    yield "forward in place", Case(ready, in_place("forward", x, h), shape)
    yield "backward", Case(ready, backward(delta), shape)
    yield "backward, gradients held", Case(ready, backward_with_gradients_held(delta), shape)
    yield "eval forward", Case(evaluated(ready), forward(x, h), shape)
    yield "eval forward in place", Case(evaluated(ready), in_place("forward", x, h), shape)
    yield from weight_cases(ready, shape, "weight_hh", "Wzx", "bnh")


def gru_cases(model, x, h_0, d_output, d_h_n):
    """Of a GRU."""
    fresh, ready = model, trained(model, x, h_0)
    shape, rows = d_output.shape, x[:, 0] if model().batch_first else x[0]
    shorter = x[:, :-1] if model().batch_first else x[:-1]
    less = shorter.shape[:-1] + shape[-1:]
    yield "first forward", Case(fresh, forward(x, h_0), shape)
    yield "forward", Case(ready, forward(x + 1, h_0), shape)
    yield "forward after a backward", Case(
        trained(model, x, h_0, pending=False), forward(x + 1, h_0), shape)
    yield "forward of other steps", Case(ready, forward(shorter), shape, less)
    yield "first backward", Case(lambda: began(fresh(), x), backward(d_output), shape)
    yield "backward", Case(ready, backward(d_output, d_h_n), shape)
    yield "backward, gradients held", Case(
        ready, backward_with_gradients_held(d_output, d_h_n), shape)
    yield "eval forward", Case(evaluated(ready), forward(x, h_0), shape)
    yield "step", Case(ready, step(rows, h_0), shape)
    yield "step in place", Case(ready, in_place("step", rows, h_0), shape)
    yield from weight_cases(ready, shape, "weight_ih_l0", [*model().state_dict()][-1])


def began(model, x):
    model(x)
    return model


def weight_cases(ready, shape, *names):
    yield "load_state_dict", Case(ready, load, shape)
    for name in names:
        yield f"{name} = ...", Case(ready, assign(name), shape)
    yield "eval()", Case(ready, mode("eval"), shape)
    yield "train()", Case(evaluated(ready), mode("train"), shape)


def cell(dtype=F32, rows=(N,), **options):
    return cell_cases(lambda: GRUCell(I, H, dtype=dtype, rng=0, **options),
                      *(normal(*rows, width, dtype=dtype, seed=seed)
                        for seed, width in enumerate([I, H, H])))


def gru(lead=(5, N), dtype=F32, inputs=I, hidden=H, layers=1, **options):
    """`lead` are the extents of x but the last."""
    rows = lead[1:] if not options.get("batch_first") else lead[:1]
    shapes = [(*lead, inputs), (layers, *rows, hidden), (*lead, hidden), (layers, *rows, hidden)]
    return gru_cases(
        lambda: GRU(inputs, hidden, layers, dtype=dtype, rng=0, **options),
        *(normal(*shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes)))


def option_cases(model, x, h_0, d_output, d_h_n, **options):
    """Of a GRU that is called with options."""
    shape = d_output.shape
    masks = options.pop("dropout_masks", None)
    ready = trained(model, x, h_0)
    yield "first forward", Case(model, called(x, h_0, dropout_masks=masks, **options), shape)
    yield "forward", Case(ready, called(x + 1, h_0, dropout_masks=masks, **options), shape)
    yield "eval forward", Case(evaluated(ready), called(x, h_0, **options), shape)
    yield "without output", Case(ready, called(x, h_0, return_output=False, **options), shape)
    waiting = waits(model, x, h_0, dropout_masks=masks, **options)
    yield "forward after one", Case(waiting, called(x + 1, h_0, dropout_masks=masks, **options),
                                    shape)
    yield "backward", Case(waiting, backward(d_output, d_h_n), shape)
    yield "backward that adds", Case(waiting, backward(d_output, d_h_n, True), shape)
    yield "backward that adds, gradients held", Case(
        waiting, backward_with_gradients_held(d_output, d_h_n, True), shape)
    yield "backward of less", Case(waiting, backward(d_output, d_h_n, False, False, False), shape)


def called(x, h_0, **options):
    """A forward; the arrays stay as they are."""
    arrays = [x, h_0, *(a for a in options.values() if isinstance(a, np.ndarray))]
    return lambda model: (functools.partial(model.forward, x, h_0, **options), arrays)


def waits(model, x, h_0, **options):
    """A model with gradients, and with a forward with options that waits for its backward."""
    def make():
        made = trained(model, x, h_0, pending=False)()
        made(x, h_0, **options)
        return made
    return make


def outputs(model, x, h_0, d_output, d_h_n, **options):
    """Calls that write to the caller's arrays. They may be half written to after a failure."""
    shape, ready = d_output.shape, trained(model, x, h_0)
    gaps = np.repeat(d_output, 2, axis=-1)[..., ::2]
    for name, out in (("out", d_output.copy()), ("out with gaps", gaps), ("no out", None)):
        def call(model, out=out):
            function = functools.partial(model.forward, x, h_0, out=out, h_n_out=d_h_n.copy(),
                                         **options)
            return function, [x, h_0]
        yield name, Case(ready, call, shape)
        yield f"eval, {name}", Case(evaluated(ready), call, shape)


def family(cases, layers=2, bidirectional=True, ragged=(), dropout=False, **options):
    """Cases of a model with options, 5 steps."""
    rng, D = np.random.default_rng(0), 1 + bidirectional
    shapes = [(5, N, I), (layers * D, N, H), (5, N, D * H), (layers * D, N, H)]
    drawn = {"lengths": np.array([3, 0, 5, 2]), "mask": rng.random((5, N)) < 0.7,
             "resets": rng.random((5, N)) < 0.3}
    drawn = {name: drawn[name] for name in ragged}
    if dropout:
        drawn["dropout_masks"] = {
            "output_l0": 2 * (rng.random((5, N, D * H)) < 0.5).astype(F32),
            "input_l0": 2 * (rng.random((N, I)) < 0.5).astype(F32),
            "recurrent_l1": 2 * (rng.random((N, H)) < 0.5).astype(F32)}
    return cases(lambda: GRU(I, H, layers, bidirectional=bidirectional, rng=0, **options),
                 *(normal(*shape, seed=seed) for seed, shape in enumerate(shapes)), **drawn)


def conversions():
    """Arrays that the core cannot read as they are. A list takes an allocation for each number."""
    others = {
        "list": (lambda a: a.tolist(), 3, 4),
        "integers": (lambda a: (4 * a).astype(int), I, H),
        "every other": (lambda a: np.repeat(a, 2, axis=-1)[..., ::2], I, H),
        "Fortran order": (np.asfortranarray, I, H),
    }
    for name, (other, inputs, hidden) in others.items():
        x, h, delta = (normal(2, N, width, seed=seed)
                       for seed, width in enumerate([inputs, hidden, hidden]))
        shape = delta.shape
        gru = trained(functools.partial(GRU, inputs, hidden, rng=0), x)
        yield f"forward, {name}", Case(gru, forward(other(x), other(h[:1])), shape)
        yield f"backward, {name}", Case(gru, backward(other(delta), other(delta[:1])), shape)
        yield f"eval forward, {name}", Case(evaluated(gru), forward(other(x), other(h[:1])), shape)
        yield f"step, {name}", Case(gru, step(other(x[0]), other(h[:1])), shape)
        cell, shape = trained(functools.partial(GRUCell, inputs, hidden, rng=0), x[0]), shape[1:]
        yield f"cell, {name}", Case(cell, forward(other(x[0]), other(h[0])), shape)
        yield f"backward of a cell, {name}", Case(cell, backward(other(delta[0])), shape)


def streams(rows=(N,), layers=2):
    """Streams of a GRU. In `model.live` is one whose model has other weights since its last step.
    """
    x, delta = normal(5, N, I), normal(5, N, H)
    chunk = normal(5, *rows, I, seed=3)
    state = normal(layers, *rows, H, seed=4)

    def ready():
        made = trained(functools.partial(GRU, I, H, layers, rng=0), x)()
        made.live = made.stream(*rows)
        made.live.run(chunk)
        made.live.state = state
        made.load_state_dict({name: np.sin(value) for name, value in made.state_dict().items()})
        return made

    def of(function):
        """A call of a stream; the arrays stay as they are."""
        return lambda model: (lambda: function(model), [chunk, state])

    def after(change):
        """What the states are after a change of them."""
        def call(model):
            change(model.live)
            return model.live.state
        return of(call)

    gaps = np.zeros((*rows, 2 * H), F32)[..., ::2]
    calls = {
        "new": of(lambda model: model.stream(*rows).step(chunk[0])),
        "step": of(lambda model: model.live.step(chunk[0])),
        "step, list": of(lambda model: model.live.step(chunk[0].tolist())),
        "step, out with gaps": of(lambda model: model.live.step(chunk[0], gaps)),
        "run": of(lambda model: model.live.run(chunk)),
        "state": of(lambda model: model.live.state),
        "state = ...": after(lambda live: setattr(live, "state", 2 * state)),
        "reset": after(lambda live: live.reset([0])),
        "copy_rows": after(lambda live: live.copy_rows([0])),
        "copy": of(lambda model: copy.copy(model.live).step(chunk[0])),
    }
    for name, call in calls.items():
        yield name, Case(ready, call, delta.shape)


KINDS = {
    "cell": cell,
    "cell of one row": lambda: cell(F64, rows=(), reset_after=False),
    "one layer": gru,
    "small, float64, no bias": lambda: gru(
        lead=(3, 2), dtype=F64, inputs=5, hidden=20, bias=False),
    "batch_first": lambda: gru((N, 5), batch_first=True),
    "two layers": lambda: gru(layers=2),
    "two layers, batch_first, float64, reset_after=False": lambda: gru(
        (N, 5), F64, layers=2, batch_first=True, reset_after=False),
    "unbatched": lambda: gru((5,)),
    "chunks": lambda: gru((160, N)),
    "windows": lambda: gru((3, 256), inputs=8, hidden=12, checkpoint=1),
    "conversions": conversions,
    "directions": lambda: family(option_cases),
    "ragged, one direction": lambda: family(
        option_cases, bidirectional=False, ragged=("lengths", "mask", "resets")),
    "ragged": lambda: family(option_cases, ragged=("lengths", "mask", "resets"), dropout=True),
    "dropout": lambda: family(option_cases, bidirectional=False, dropout=True, reset_after=False),
    "streams": streams,
    "streams of one row": lambda: streams(rows=(), layers=1),
    "outputs": lambda: family(outputs, ragged=("lengths",)),
}


# ---- the interpreter itself ----------------------------------------------------------------------

class Closures:
    """Code of its own that makes cells: CPython 3.12.1 and 3.13.0 crash where that fails."""

    def change(self, new):
        return new(self)

    def load(self, values):
        self.change(lambda model: model.replaced(values))

    def load_all(self, mapping):
        values = {}
        for name in mapping:
            values[name] = mapping[name] + 1
        self.load(values)

    def replaced(self, values):
        return dict(values)


def try_closures():
    call = functools.partial(Closures().load_all, {"a": 1000, "b": 2000})
    for n in [0] * 30 + [n for n in range(1, 40) for _ in range(4)]:
        ended, _, error = attempt(call, n)
        assert ended != "broken", error
        call()


if __name__ == "__main__":
    left = find_left()
    gc.disable()                                           # its moments are not ours to choose
    if sys.argv[1] == "closures":
        try_closures()
    else:
        for name, case in KINDS[sys.argv[1]]():
            case.run(name)
