"""TensorFlow once more, with jit_compile=True: XLA runs the time loop several times faster."""

from . import tensorflow_peer


class Peer(tensorflow_peer.Peer):
    name = "TensorFlow XLA"
    xla = True
    obeys_avx2_env = False  # 64,32,256,512 takes as long as with AVX-512: 1.5 times AVX2's peak
