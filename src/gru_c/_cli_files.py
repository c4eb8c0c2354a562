"""The subcommands ``inspect`` and ``convert`` of ``gru-c``: files of models."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gru_c.interop.found import Found

SIZES = ("input_size", "hidden_size", "num_layers", "bidirectional", "reverse", "bias")


def add_commands(commands: Any) -> None:
    """Add both to the subcommands of the parser."""
    inspect = commands.add_parser(
        "inspect", help="say what is in the file of a model",
        description="Print the GRUs of a file of PyTorch, Keras, ONNX, RTNeural, safetensors or "
        "npz, its other arrays and its metadata.")
    inspect.add_argument("file", metavar="FILE")
    inspect.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_max_bytes(inspect)
    inspect.set_defaults(run=run_inspect)

    convert = commands.add_parser(
        "convert", help="write the GRU of one file to another",
        description="Read a GRU from a file of PyTorch, Keras, ONNX, RTNeural, safetensors or npz "
        "and write it to another. The content of IN tells its format, the suffix of OUT the other: "
        ".safetensors, .npz, .pt, .pth, .onnx, .keras, .weights.h5 or .json (RTNeural).")
    add = convert.add_argument
    add("source", metavar="IN")
    add("target", metavar="OUT")
    add("--name", help="which GRU, as inspect names it, if there are several")
    add("--dtype", choices=["float32", "float64"], help="of what is written")
    for option, text in (("batch-first", "whether its arrays are (N, T, ...)"),
                         ("reset-after", "whether the reset gate acts after the product")):
        add(f"--{option}", action=argparse.BooleanOptionalAction,
            help=f"{text}, where IN does not tell or tells it wrongly")
    add("--quantize", choices=["int8", "bfloat16"], help="round the weights; .safetensors and .npz "
        "hold them so, others as float32")
    add("--x-bits", type=int, choices=[8, 12, 16],
        help="of x in products: 8 (default) or 12 with int8; 16 with bfloat16, which rounds h, "
        "too (default: not rounded)")
    _add_max_bytes(convert)
    convert.set_defaults(run=run_convert)


def _add_max_bytes(parser: argparse.ArgumentParser) -> None:
    from gru_c._exchange import MAX_BYTES

    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, metavar="B",
                        help="refuse a file whose arrays have more (default: 4 GiB)")


# ---- convert ------------------------------------------------------------------------------------

def run_convert(args: argparse.Namespace) -> int:
    """Write the target; return the exit status."""
    from gru_c.interop.formats import convert, format_to_write

    options = {name: value for name in ("batch_first", "reset_after")
               if (value := getattr(args, name)) is not None}
    if args.x_bits and not args.quantize:
        raise ValueError("--x-bits needs --quantize")
    quantization = [args.quantize, args.x_bits] if args.quantize else []
    with noted():
        found = convert(args.source, args.target, args.name, args.dtype, args.max_bytes,
                        quantization, **options)
    print(printable(f"{args.target}: {format_to_write(args.target).name}, {summary(found)}"))
    return 0


# ---- inspect ------------------------------------------------------------------------------------

def run_inspect(args: argparse.Namespace) -> int:
    """Print what is in the file; return the exit status."""
    with noted():
        found = contents(args.file, args.max_bytes)
    print(json.dumps(found, indent=2) if args.json else printable("\n".join(lines(found))))
    if found["problem"]:
        print(f"gru-c: error: {found['problem']}", file=sys.stderr)
    return 1 if found["problem"] else 0


def contents(path: str, max_bytes: int) -> dict[str, Any]:
    """What is in a file, as JSON has it."""
    from gru_c.interop import ModelFileError
    from gru_c.interop.formats import find, format_of, read_arrays

    problem, models = None, []
    arrays = read_arrays(path, max_bytes)
    try:
        models = find(path, max_bytes)
    except ModelFileError as error:                        # there is a GRU, but none of ours
        problem = str(error)
    used = {name for found in models for name in found.arrays}
    return {
        "file": path,
        "format": format_of(path).name,
        "models": [described(found) for found in models],
        "problem": problem,
        "other_arrays": {name: {"shape": a.shape, "dtype": str(a.dtype)}
                         for name, a in arrays.items() if name not in used},
        "metadata": {name: text for found in models for name, text in found.metadata.items()},
    }


def described(found: Found) -> dict[str, Any]:
    """A GRU, as JSON has it."""
    from gru_c.interop import quantized
    from gru_c.interop.state_dict import size

    arrays = found.parameters.values()
    own = found.quantization
    stored = quantized.stored(found.parameters, own[0]) if own else found.parameters
    return {
        "name": found.name,
        "size": size(found),
        "convention": found.convention,
        "options": {name: value for name, value in found.options.items() if name not in SIZES}
        | dict(zip(quantized.OPTIONS, own, strict=False)),
        "cell": found.cell,
        **{name: found.options.get(name, False) for name in SIZES},
        "dtype": " and ".join(sorted({str(a.dtype) for a in arrays})),
        "parameters": sum(a.size for a in arrays),
        "bytes": sum(a.nbytes for a in stored.values()),
    }


def summary(found: Found) -> str:
    """Sizes, dtype and number of parameters in words."""
    from gru_c.interop.state_dict import size

    count = sum(a.size for a in found.parameters.values())
    weights = f", weights rounded to {found.quantization[0]}" if found.quantization else ""
    weights += f", x_bits={found.quantization[1]}" if len(found.quantization) > 1 else ""
    return f"{size(found)}, {found.dtype}{weights}, {count:,} parameters"


def lines(found: dict[str, Any]) -> Iterator[str]:
    """`contents` for a reader."""
    models, others = found["models"], found["other_arrays"]
    yield (f"{found['file']}: {found['format']}, {_count(len(models), 'GRU')}, "
           f"{_count(len(others), 'other array')}")
    for model in models:
        yield ""
        kind = "GRU cell" if model["cell"] else "GRU"
        yield f"{kind} {model['name']!r}" if model["name"] else kind
        options = ", ".join(f"{name}={value!r}" for name, value in model["options"].items()
                            if name == "reset_after" or value != _default(name))
        for title, text in (("size", model["size"]),
                            ("convention", model["convention"]), ("options", options),
                            ("dtype", model["dtype"]),
                            ("parameters", f"{model['parameters']:,} ({model['bytes']:,} bytes)")):
            if text:
                yield f"  {title:<11} {text}"
    for title, rows in (
            ("other arrays", {name: f"{tuple(a['shape'])} {a['dtype']}"
                              for name, a in others.items()}),
            ("metadata", found["metadata"])):
        if rows:
            yield ""
            yield title
            width = min(40, max(len(_shown(name)) for name in rows))
            for name, text in rows.items():
                yield f"  {_shown(name):<{width}}  {_shown(text)}"


def _default(option: str) -> Any:
    from gru_c import GRU

    own = signature(GRU).parameters.get(option)
    return own and own.default


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"


def _shown(text: str) -> str:
    """A text of a file, which could move the cursor of a terminal."""
    return text if text.isprintable() else repr(text)


@contextmanager
def noted() -> Iterator[None]:
    """Print warnings of readers as notes of one line, each once; after an error, none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        yield
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"gru-c: note: {text.splitlines()[0]}", file=sys.stderr)


def printable(text: str) -> str:
    """A text without what standard output cannot encode."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
