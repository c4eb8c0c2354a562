"""TensorFlow once more, with jit_compile=True: XLA runs the time loop several times faster."""

from __future__ import annotations

from . import tensorflow_peer
from .tensorflow_peer import available, reason

__all__ = ["Peer", "available", "reason"]


class Peer(tensorflow_peer.Peer):
    name = "TensorFlow XLA"
    xla = True
