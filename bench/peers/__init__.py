"""The other GRUs that the benchmark measures, behind one interface.

    Peer = peers.load("torch")                      # imports nothing heavy
    Peer.version()                                  # of the installed library
    peer = Peer(peers.random_problem(shape, "float32"), threads=1, training=False)
    peer.run(); peer.output()                       # with training=True: peer.gradients(), too
    peer.time(repeats, number)                      # seconds; oneDNN's loop runs in C++
    peer.steps()                                    # {way to call: Step} for T = 1
    Peer(peers.padded(problem))                     # a ragged problem as one of T steps

What a peer cannot do raises `Unsupported` with the reason. Libraries are imported in `Peer(...)`,
never before, because limits such as `AVX2_ENV` must be in the environment first; one process has
one number of threads. `python -m bench --smoke --peers NAME` checks a peer.
"""

from __future__ import annotations

from importlib import import_module

from .base import AVX2_ENV, WEIGHT_NAMES, PeerBase, Step, Unsupported, best_time, padded
from .oracle import random_problem, relative_error, truth

NAMES = ("torch", "onnxruntime", "openvino", "tensorflow", "tensorflow_xla", "jax", "onednn")

__all__ = [
    "AVX2_ENV", "NAMES", "WEIGHT_NAMES", "PeerBase", "Step", "Unsupported", "best_time", "load",
    "padded", "random_problem", "relative_error", "truth",
]


def load(name: str) -> type[PeerBase]:
    """The class of a peer."""
    return import_module(f".{name}_peer", __name__).Peer
