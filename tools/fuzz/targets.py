"""What is fuzzed: readers, the mutations that suit their files, and seeds."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import mutations
from mutations import Havoc

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "interop"
CORPUS = FIXTURES / "fuzz"

Mutation = Callable[[bytes, Random, Havoc], bytes]


@dataclass(frozen=True)
class Target:
    """A reader of `gru_c.interop` and the inputs that it gets.

    ours
        Whether a parser of ours reads the file. If not, a library in C does: a crash of it is
        listed, and memory is what the operating system counts.
    """

    module: str
    suffix: str
    mutate: Mutation
    seeds: tuple[str, ...] = ()
    ours: bool = True
    needs: str = ""
    max_length: int = 8192

    def reader(self):
        """The module that reads; it is imported here, so that a fuzzer can instrument it."""
        return importlib.import_module(f"gru_c.interop.{self.module}")

    def inputs(self, name: str) -> Iterator[tuple[str, bytes]]:
        """The committed corpus, and small fixtures of the format."""
        archive = CORPUS / f"{name}.zip"
        if archive.exists():
            with zipfile.ZipFile(archive) as corpus:
                yield from ((member, corpus.read(member)) for member in corpus.namelist())
        for pattern in self.seeds:
            for path in sorted(FIXTURES.glob(pattern)):
                if path.stat().st_size <= self.max_length:
                    yield path.name, path.read_bytes()


def inside_pt(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    change = mutations.pickled if name.endswith(".pkl") else mutations.raw
    return change(content, rng, havoc)


def inside_keras(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    change = mutations.json_text if name.endswith(".json") else mutations.raw
    return change(content, rng, havoc)


def inside_npz(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    return mutations.npy(content, rng, havoc)


TARGETS = {
    "pt": Target("torch", ".pt", mutations.zipped(inside_pt), ("torch/*.pt", "torch/*.pth")),
    "pt-legacy": Target("torch", ".pt", mutations.pickled, ("torch/*legacy*",)),
    "npz": Target("npz", ".npz", mutations.zipped(inside_npz), ("*/*.npz",)),
    "rtneural": Target("rtneural", ".json", mutations.json_text, ("rtneural/*.json",)),
    "hdf5": Target("hdf5", ".h5", mutations.raw, ("keras/*.h5",), ours=False, needs="h5py",
                   max_length=65536),
    "keras": Target("keras", ".keras", mutations.zipped(inside_keras), ("keras/*.keras",),
                    ours=False, needs="h5py", max_length=65536),
    "onnx": Target("onnx", ".onnx", mutations.protobuf, ("onnx/*.onnx",), ours=False,
                   needs="onnx"),
    "safetensors": Target("safetensors", ".safetensors", mutations.with_length,
                          ("*/*.safetensors",), ours=False, needs="safetensors"),
}
