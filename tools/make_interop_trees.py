"""Write tests/fixtures/interop/{flax,equinox,rtneural}: models, and what they compute.

    python tools/make_interop_trees.py RTNEURAL_FOLDER [OUTPUT_FOLDER]

Needs jax, flax and equinox, a C++ compiler and a copy of github.com/jatinchowdhury18/RTNeural,
whose backend without Eigen and xsimd is used. Parameters and inputs are multiples of 2^-8.

flax/NAME.npz and equinox/NAME.npz have the leaves of a tree by path, under ``tree/``, and ``x`` and
``output``, computed in float64. rtneural/NAME.json are models; NAME.npz have ``x`` and ``output``,
computed by RTNeural in double.
"""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import equinox
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "interop"
I, H, T, N = 3, 4, 6, 2  # noqa: E741

# Prints what a model computes for the steps on its standard input.
PROGRAM = r"""
#include "RTNeural/RTNeural.h"
#include <cstdio>
#include <fstream>
using namespace RTNeural;
int main(int, char** argv) {
    std::ifstream file(argv[1]);
    std::vector<double> x;
    for(double value; std::scanf("%lf", &value) == 1;)
        x.push_back(value);
    if(std::string(argv[2]) == "layers") {
        auto model = json_parser::parseJson<double>(file);
        model->reset();
        for(size_t t = 0; t < x.size(); t += model->getInSize())
            std::printf("%.17g\n", model->forward(&x[t]));
    } else {
        nlohmann::json json;
        file >> json;
        GRULayer<double> gru(3, 4);
        torch_helpers::loadGRU<double>(json, argv[3], gru);
        gru.reset();
        for(size_t t = 0; t < x.size(); t += 3) {
            double h[4];
            gru.forward(&x[t], h);
            std::printf("%.17g %.17g %.17g %.17g\n", h[0], h[1], h[2], h[3]);
        }
    }
}
"""


def rounded(a):
    return np.round(np.asarray(a, np.float64) * 256) / 256


def drawn(*shape, seed=0):
    return rounded(np.random.default_rng([seed, *shape]).normal(size=shape))


def redrawn(tree):
    """The tree with leaves of random numbers: biases of new cells are zeros."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [jnp.asarray(drawn(*a.shape, seed=i))
                                          for i, a in enumerate(leaves)])


def flat(tree, path="tree"):
    if isinstance(tree, dict):
        return {name: a for key, value in tree.items()
                for name, a in flat(value, f"{path}/{key}").items()}
    return {path: np.asarray(tree)}


# ---- Flax, Equinox ------------------------------------------------------------------------------

linen_cell = partial(flax.linen.GRUCell, H, param_dtype=np.float64)


class Stack(flax.linen.Module):
    """Two layers and a head, as people write them."""

    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.RNN(linen_cell(name="lower"))(x)
        x = flax.linen.RNN(linen_cell(name="upper"))(x)
        return flax.linen.Dense(2, param_dtype=np.float64, name="head")(x)


def linen_case(module, x):
    variables = redrawn(module.init(jax.random.key(0), x))
    return {"x": x, "output": module.apply(variables, x), **flat(variables)}


def nnx_case(module, x):
    """A module whose parameters, but not its random keys, are drawn anew."""
    nnx.update(module, redrawn(nnx.state(module, nnx.Param)))
    tree = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    return {"x": x, "output": module(x), **flat(tree)}


def flax_cases():
    x, rnn, cell, rngs = drawn(N, T, I), flax.linen.RNN, linen_cell, nnx.Rngs(0)

    def own():
        return nnx.RNN(nnx.GRUCell(I, H, param_dtype=np.float64, rngs=rngs), rngs=rngs)

    return {
        "linen_rnn": linen_case(rnn(cell()), x),
        "linen_bidirectional": linen_case(flax.linen.Bidirectional(rnn(cell()), rnn(cell())), x),
        "linen_reverse": linen_case(rnn(cell(), reverse=True, keep_order=True), x),
        "linen_relu": linen_case(rnn(cell(activation_fn=flax.linen.relu)), x),
        "linen_stack": linen_case(Stack(), x),
        "nnx_rnn": nnx_case(own(), x),
        "nnx_bidirectional": nnx_case(nnx.Bidirectional(own(), own(), rngs=rngs), x),
    }


def equinox_cases():
    x = drawn(T, I)
    cases = {}
    for name, bias in (("gru", True), ("no_bias", False)):
        cell = redrawn(equinox.nn.GRUCell(I, H, use_bias=bias, dtype=np.float64,
                                          key=jax.random.key(0)))
        h, output = jnp.zeros(H), []
        for x_t in x:
            h = cell(x_t, h)
            output.append(h)
        arrays = {key: a for key in ("weight_ih", "weight_hh", "bias", "bias_n")
                  if (a := getattr(cell, key)) is not None}
        cases[name] = {"x": x, "output": np.array(output), **flat(arrays)}
    return cases


# ---- RTNeural -----------------------------------------------------------------------------------

def rtneural_models():
    """Arguments of the program and the model."""
    def gru(inputs, seed):
        weights = [drawn(*shape, seed=seed) / 2 for shape in (
            (inputs, 3 * H), (H, 3 * H), (2, 3 * H))]
        return {"type": "gru", "activation": "tanh", "shape": [None, None, H],
                "weights": [a.tolist() for a in weights]}

    def dense(inputs, outputs, activation):
        return {"type": "dense", "activation": activation, "shape": [None, None, outputs],
                "weights": [drawn(inputs, outputs).tolist(), drawn(outputs).tolist()]}

    names = {"weight_ih_l0": (3 * H, I), "weight_hh_l0": (3 * H, H), "bias_ih_l0": (3 * H,),
             "bias_hh_l0": (3 * H,)}
    state = {f"rec.{name}": drawn(*shape, seed=3).tolist() for name, shape in names.items()}
    state |= {"lin.weight": drawn(1, H).tolist(), "lin.bias": [0.5]}
    return {
        "layers": (["layers"], {
            "in_shape": [None, None, I],
            "layers": [dense(I, 2, "tanh"), gru(2, 1), gru(H, 2), dense(H, 1, "")]}),
        "state_dict": (["state_dict", "rec."], state),
    }


def write_rtneural(source, folder):
    x = drawn(T, I)
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "main.cpp").write_text(PROGRAM)
        program = f"{work}/main"
        subprocess.run(["g++", "-std=c++17", "-O1", "-w", f"-I{source}", "-o", program,
                        f"{work}/main.cpp"], check=True)
        for name, (arguments, model) in rtneural_models().items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps(model))
            steps = " ".join(map(repr, x.ravel().tolist()))
            done = subprocess.run([program, path, *arguments], input=steps, text=True, check=True,
                                  stdout=subprocess.PIPE)
            output = np.array(done.stdout.split(), float).reshape(T, -1)
            write(folder / f"{name}.npz", {"x": x, "output": output})
            print(f"{path}: {path.stat().st_size:,} bytes")


def write(path, arrays):
    np.savez_compressed(path, **{name: np.asarray(a) for name, a in arrays.items()})
    print(f"{path}: {path.stat().st_size:,} bytes")


def main(arguments):
    if len(arguments) not in (1, 2):
        raise SystemExit(__doc__)
    jax.config.update("jax_enable_x64", True)
    root = Path(arguments[1]) if len(arguments) == 2 else FIXTURES
    for name in ("flax", "equinox", "rtneural"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for kind, cases in (("flax", flax_cases()), ("equinox", equinox_cases())):
        for name, arrays in cases.items():
            write(root / kind / f"{name}.npz", arrays)
    write_rtneural(arguments[0], root / "rtneural")


if __name__ == "__main__":
    main(sys.argv[1:])
