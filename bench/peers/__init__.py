"""The other GRUs that the benchmark measures, behind one interface.

    module = peers.load("torch")                    # imports nothing heavy
    module.available()                              # version, or None: then module.reason()
    peer = module.Peer(weights, shape, dtype=np.float32, threads=1, training=False)
    peer.set_input(x, h0, d_output)
    peer.infer(); peer.output()                     # or, with training=True:
    peer.train(); peer.gradients()
    peer.time_infer(repeats, number)                # seconds; oneDNN's loop runs in C++
    peer.steps()                                    # {way to call: Step} for T = 1

A peer that cannot do a case raises `Unsupported` with the reason. `python -m bench.peers` checks
every peer that is installed. Libraries are imported in `Peer(...)`, never before, because limits
such as `AVX2_ENV` must be in the environment first; one process has one number of threads.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .base import (
    AVX2_ENV,
    GRADIENT_NAMES,
    WEIGHT_NAMES,
    PeerBase,
    Step,
    Unsupported,
    best_time,
)
from .oracle import forward_backward, random_problem, relative_error

NAMES = ("torch", "onnxruntime", "openvino", "tensorflow", "tensorflow_xla", "onednn")

__all__ = [
    "AVX2_ENV", "GRADIENT_NAMES", "NAMES", "WEIGHT_NAMES", "PeerBase", "Step", "Unsupported",
    "best_time", "forward_backward", "load", "random_problem", "relative_error",
]


def load(name: str) -> ModuleType:
    """The module of a peer: `available()`, `reason()`, `Peer`."""
    return import_module(f".{name}_peer", __name__)
