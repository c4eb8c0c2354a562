"""TensorFlow once more, with jit_compile=True: XLA runs the time loop several times faster."""

from . import tensorflow_peer


class Peer(tensorflow_peer.Peer):
    name = "TensorFlow XLA"
    xla = True
