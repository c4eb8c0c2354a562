"""Write the weights of a model as C arrays:  python make_weights.py [model.safetensors] > weights.h

Without a file, of a random model that stands in for a trained one: a GRU of one input, and a dense
layer from its hidden units to one output. A file holds the GRU alone, written by model.save.
"""

import sys

import gru_c
import numpy as np


def declare(name, array):
    numbers = ", ".join(f"{number:.9g}f" if "." in f"{number:.9g}" or "e" in f"{number:.9g}"
                        else f"{number:.9g}.0f" for number in array.ravel())
    print(f"static const float {name}[{array.size}] = {{{numbers}}};")


def main():
    model = gru_c.GRU.load(sys.argv[1]) if len(sys.argv) > 1 else gru_c.GRU(1, 16, 2, rng=0)
    rng = np.random.default_rng(1)
    print("// Written by make_weights.py.")
    print(f"enum {{ kInputs = {model.input_size}, kHidden = {model.hidden_size}, "
          f"kLayers = {model.num_layers} }};")
    for name, array in model.state_dict().items():
        declare(name, array)
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        names = (f"{kind}_l{layer}" for layer in range(model.num_layers))
        print(f"static const float *const {kind}[kLayers] = {{{', '.join(names)}}};")
    declare("dense_weight", rng.uniform(-1, 1, model.hidden_size) / 4)
    declare("dense_bias", np.zeros(1))


if __name__ == "__main__":
    main()
