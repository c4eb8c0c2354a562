"""What is fuzzed: readers, the mutations that suit their files, and seeds."""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

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
        Whether a parser of ours reads the file. If not, a compiled library does, whose crashes are
        no failures here, and whose memory only the limit of the address space sees.
    wrap
        Makes a file of an input, where that is a part of one.
    beside
        Bytes of memory that reading an input may take beside what all may.
    """

    module: str
    suffix: str
    mutate: Mutation
    seeds: tuple[str, ...] = ()
    ours: bool = True
    max_length: int = 4096
    wrap: Callable[[bytes], bytes] = bytes
    beside: Callable[[bytes], int] = lambda data: 0

    def reader(self) -> Any:
        """The module that reads; it is imported here, so that a fuzzer can instrument it."""
        return importlib.import_module(f"gru_c.interop.{self.module}")

    def inputs(self, name: str) -> Iterator[tuple[str, bytes]]:
        """What a run begins with."""
        if name != "any":
            yield from self.own(name)
            return
        for other, target in TARGETS.items():
            if other != "any" and target.wrap is bytes:
                yield from target.own(other)

    def own(self, name: str) -> Iterator[tuple[str, bytes]]:
        """The committed corpus, without what a library crashes on, and small fixtures."""
        archive = CORPUS / f"{name}.zip"
        if archive.exists():
            with zipfile.ZipFile(archive) as corpus:
                yield from ((member, corpus.read(member)) for member in corpus.namelist()
                            if not member.startswith("crash"))
        for pattern in self.seeds:
            for path in sorted(FIXTURES.glob(pattern)):
                if path.stat().st_size <= self.max_length:
                    yield path.name, path.read_bytes()


def inside_pt(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    change = mutations.pickled if name.endswith(".pkl") else mutations.raw
    return change(content, rng, havoc)


def inside_keras(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    change = mutations.json_text if name.endswith(".json") else mutations.sparse
    return change(content, rng, havoc)


def anything(data: bytes, rng: Random, havoc: Havoc) -> bytes:
    """A file of any format, by what it begins with."""
    if data[:2] == b"PK":
        return mutations.zipped(inside_any)(data, rng, havoc)
    if data[:1] == b"\x80":
        return mutations.pickled(data, rng, havoc)
    if data[:1] == b"\x89":
        return mutations.sparse(data, rng, havoc)
    if data[:1] == b"{":
        return mutations.json_text(data, rng, havoc)
    if data[:1] == b"\x08":
        return mutations.protobuf(data, rng, havoc)
    return mutations.with_length(data, rng, havoc)


def inside_any(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    if name.endswith(".pkl"):
        return mutations.pickled(content, rng, havoc)
    return inside_keras(name, content, rng, havoc)


def inside_npz(name: str, content: bytes, rng: Random, havoc: Havoc) -> bytes:
    return mutations.npy(content, rng, havoc)


def metadata_npz(data: bytes) -> bytes:
    """A model with this text as its metadata."""
    members = {"weight_ih_l0": ("<f4", "(3, 1)", bytes(12)),
               "weight_hh_l0": ("<f4", "(3, 1)", bytes(12)),
               "__metadata__": ("|u1", f"({len(data)},)", data)}
    return mutations.archived([
        (f"{name}.npy", mutations.npy_file(dtype, shape, values))
        for name, (dtype, shape, values) in members.items()])


def metadata_safetensors(data: bytes) -> bytes:
    """A model with this text as its metadata."""
    header = (b'{"__metadata__":' + data + b',"weight_ih_l0":{"dtype":"F32","shape":[3,1],'
              b'"data_offsets":[0,12]},"weight_hh_l0":{"dtype":"F32","shape":[3,1],'
              b'"data_offsets":[12,24]}}')
    return len(header).to_bytes(8, "little") + header + bytes(24)


def of_pickles(data: bytes) -> int:
    """Of objects: 64 bytes for each byte of a pickle, which an archive may have deflated."""
    from gru_c.interop.containers import zips  # not before a fuzzer instruments it
    from gru_c.interop.errors import ModelFileError

    try:
        members = zips.Archive(io.BytesIO(data), len(data), "input").members
    except ModelFileError:
        return 0
    return 64 * sum(member.size for name, member in members.items() if name.endswith("data.pkl"))



TARGETS = {
    "pt": Target("torch", ".pt", mutations.zipped(inside_pt), beside=of_pickles),
    "pt-legacy": Target("torch", ".pt", mutations.pickled, max_length=2048,
                        beside=lambda data: 64 * len(data)),
    "npz": Target("files", ".npz", mutations.zipped(inside_npz), ("*/*.npz",)),
    "metadata-npz": Target("files", ".npz", mutations.json_inside, wrap=metadata_npz),
    "metadata-safetensors": Target("files", ".safetensors", mutations.json_inside,
                                   wrap=metadata_safetensors),
    "rtneural": Target("rtneural", ".json", mutations.json_text, ("rtneural/*.json",)),
    "safetensors": Target("files", ".safetensors", mutations.with_length, ("*/*.safetensors",),
                          ours=False),
    "hdf5": Target("keras", ".h5", mutations.sparse, ours=False, max_length=20000),
    "keras": Target("keras", ".keras", mutations.zipped(inside_keras), ours=False,
                    max_length=20000),
    "onnx": Target("onnx", ".onnx", mutations.protobuf, ours=False),
    "any": Target("formats", ".model", anything, ours=False, max_length=20000,
                  beside=lambda data: of_pickles(data) + 64 * len(data)),
}
