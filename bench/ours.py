"""gru_c behind the interface of the peers, so that the same code builds, checks and times it."""

from __future__ import annotations

from contextlib import contextmanager

from .peers.base import PeerBase, Step


class Peer(PeerBase):
    """gru_c.GRU for sequences, gru_c.GRUCell for one step: as PyTorch's side is chosen."""

    name = "gru_c"
    dtypes = ("float32", "float64")
    can_train = True
    own_threads: int | None = None  # instead of the process's number
    checkpoint: int | None = None  # of the GRU

    def build(self) -> None:
        import gru_c

        self.gru_c = gru_c
        self.lone = self.shape.is_cell
        sizes = self.shape.I, self.shape.H
        options = {"dtype": self.dtype, "rng": 0, "reset_after": self.reset_after}
        self.cell = gru_c.GRUCell(*sizes, **options)
        self.gru = gru_c.GRU(*sizes, self.shape.layers, bidirectional=self.shape.directions == 2,
                             checkpoint=self.checkpoint, **options)
        self.cell.load_state_dict(self.parts[0])
        self.gru.load_state_dict(self.weights)
        self.cell.train(self.training)
        self.gru.train(self.training)
        self._infer = self._infer_cell if self.lone else self._infer_gru
        self._train = self._train_cell if self.lone else self._train_gru

    @contextmanager
    def scope(self):
        self.gru_c.set_num_threads(self.own_threads or self.threads)
        try:
            yield
        finally:
            self.gru_c.set_num_threads(self.threads)

    def _set_input(self, x, h_0, d_output) -> None:
        self.x, self.h_0, self.d_output = x, h_0, d_output
        if self.lone:
            self.h_0 = h_0[0]
            self.result = self.h_0.copy()  # written in every call, as the bound outputs of others

    def _infer_gru(self) -> None:
        self.result, _ = self.gru(self.x, self.h_0, lengths=self.lengths)

    def _infer_cell(self) -> None:
        self.cell(self.x[0], self.h_0, out=self.result)

    def _train_gru(self) -> None:
        self.result, _ = self.gru(self.x, self.h_0, lengths=self.lengths)
        self.d_input = self.gru.backward(self.d_output, None)

    def _train_cell(self) -> None:
        self.result = self.cell(self.x[0], self.h_0)
        self.d_input = self.cell.backward(self.d_output[0])

    def output(self):
        return self.result[None] if self.lone else self.result

    def gradients(self):
        dx, dh_0 = self.d_input
        T, N, I, H = self.shape.sizes  # noqa: E741
        grads, suffix = (self.cell.grads, "_l0") if self.lone else (self.gru.grads, "")
        named = {f"d{name}{suffix}": grad for name, grad in grads.items()}
        return {"dx": dx.reshape(T, N, I), "dh_0": dh_0.reshape(-1, N, H), **named}

    def steps(self):
        """`out=h` moves the state on, as a stream does, so the first call alone has the answer."""
        cell, gru, x, h_0 = self.cell, self.gru, self.x[0], self.h_0
        moved = h_0.copy()
        sequence, state, states = self.x, h_0[None], h_0[None].copy()
        return {
            "cell(x, h, out=h)": Step(lambda: cell(x, moved, out=moved), lambda h: h),
            "cell(x, h)": Step(lambda: cell(x, h_0), lambda h: h),
            "gru.step(x, h, out=h)": Step(lambda: gru.step(x, states, out=states), lambda h: h[0]),
            "gru(x, h)": Step(lambda: gru(sequence, state), lambda result: result[0][0]),
        }


class OneThread(Peer):
    """gru_c with one thread, in a process of several."""

    own_threads = 1


class Quantized(Peer):
    """gru_c with weights in int8 or bfloat16."""

    dtypes = ("float32",)
    can_train = False
    weights_in = "int8"
    x_bits: int | None = None

    def build(self) -> None:
        super().build()
        self.cell = self.cell.quantize(self.weights_in, self.x_bits)
        self.gru = self.gru.quantize(self.weights_in, self.x_bits)
