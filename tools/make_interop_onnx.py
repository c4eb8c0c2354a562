"""Write tests/fixtures/interop/onnx: files of PyTorch's exporters, and ONNX Runtime's results.

    PYTHONPATH=src python tools/make_interop_onnx.py [folder]

Needs torch, onnx, onnxscript, onnxruntime and what the tests need: tests/test_interop_onnx_live.py
exports the same models. results.npz has for each file NAME the inputs that ONNX Runtime had in the
order of the graph, and its results: `NAME/inputs/...`, `NAME/output`, `NAME/h_n`.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS)]

from family import case  # noqa: E402
from helpers import normal  # noqa: E402
from test_interop_onnx_live import by_runtime, export, file_of, module, session  # noqa: E402

TWO = {"num_layers": 2, "bidirectional": True}


def exported(path, options, states=False, **how):
    """A file of PyTorch, its inputs and the results of ONNX Runtime."""
    model = module(torch, **options)
    arrays = {"x": normal(5, 2, 3)}
    if states:
        D = 1 + options.get("bidirectional", False)
        arrays["h_0"] = normal(D * options.get("num_layers", 1), 2, 4)
    export(torch, model, arrays.values(), path, **how)
    output, h_n = by_runtime(path, **arrays)
    without_paths(path)
    return {**{f"inputs/{name}": a for name, a in arrays.items()}, "output": output, "h_n": h_n}


def without_paths(path):
    """Leave out where the exporter says which lines of which files a node is from."""
    model = onnx.load(path, load_external_data=False)
    for part in [model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input,
                 *model.graph.output, *model.graph.initializer]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.save(model, path)


def as_by_0_7_0(path):
    """What onnxscript 0.5.7 to 0.7.0 wrote: linear_before_reset=0."""
    model = onnx.load(path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "linear_before_reset":
                attribute.i = 0
    onnx.save(model, path)


def reverse(path):
    """One direction from the end, with lengths: no exporter of PyTorch writes it."""
    drawn = case(5, 4, (3, 4), bidirectional=True, bias=False).but(lengths=np.array([5, 0, 1, 3]))
    inputs = file_of(drawn, "reverse", path)
    Y, Y_h = session(path).run(None, inputs)
    return {"inputs/x": inputs["X"], "inputs/h_0": inputs["initial_h"],
            "inputs/lengths": inputs["sequence_lens"], "output": Y[:, 0], "h_n": Y_h}


def main(arguments):
    if len(arguments) > 1:
        raise SystemExit(__doc__)
    folder = Path(arguments[0]) if arguments else TESTS / "fixtures" / "interop" / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        results = {
            "torchscript": exported(folder / "torchscript.onnx", TWO, dynamo=False),
            "torchscript_not_folded": exported(
                folder / "torchscript_not_folded.onnx", {"num_layers": 2}, True, dynamo=False,
                do_constant_folding=False),
            "dynamo": exported(folder / "dynamo.onnx", TWO, dynamo=True, external_data=False),
            "dynamo_external": exported(folder / "dynamo_external.onnx", TWO, True, dynamo=True),
            "dynamo_not_optimised": exported(
                folder / "dynamo_not_optimised.onnx", {"num_layers": 2, "bias": False},
                dynamo=True, optimize=False, external_data=False),
            "dynamo_0_7_0": exported(folder / "dynamo_0_7_0.onnx", {}, dynamo=True,
                                     external_data=False),
            "reverse": reverse(folder / "reverse.onnx"),
        }
        cell = Path(work) / "cell.onnx"
        export(torch, torch.nn.GRUCell(3, 4), (normal(2, 3), normal(2, 4)), cell, dynamo=True,
               external_data=False)
        without_paths(cell)
        (folder / "cell.onnx").write_bytes(cell.read_bytes())
    as_by_0_7_0(folder / "dynamo_0_7_0.onnx")
    np.savez_compressed(folder / "results.npz", **{
        f"{name}/{key}": a for name, found in results.items() for key, a in found.items()})
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
