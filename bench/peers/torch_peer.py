"""PyTorch: torch.nn.GRU for sequences, torch.nn.GRUCell for single steps, eager mode.

Ragged rows are packed and unpacked in each call, as a user has to.
"""

from __future__ import annotations

from contextlib import nullcontext

from .base import WEIGHT_NAMES, PeerBase, Step


class Peer(PeerBase):
    name = "PyTorch"
    distributions = ("torch",)
    dtypes = ("float32", "float64")
    can_train = True

    def build(self) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        dtype = getattr(torch, self.dtype.name)
        sizes = (self.shape.I, self.shape.H)
        self.cell = torch.nn.GRUCell(*sizes, dtype=dtype)
        self.gru = torch.nn.GRU(*sizes, self.shape.layers, dtype=dtype,
                                bidirectional=self.shape.directions == 2)
        weights = {name: torch.from_numpy(value) for name, value in self.weights.items()}
        self.gru.load_state_dict(weights)
        self.cell.load_state_dict({name: weights[f"{name}_l0"] for name in WEIGHT_NAMES})
        # A lone step goes faster through the cell, forward and backward.
        self.model, suffix = (self.cell, "_l0") if self.shape.is_cell else (self.gru, "")
        named = self.model.named_parameters()
        self.parameters = {name + suffix: value for name, value in named}
        if self.lengths is not None:
            self.lengths = torch.from_numpy(self.lengths)
            self.model = self._packed

    def scope(self):
        return nullcontext() if self.training else self.torch.inference_mode()

    def _set_input(self, x, h_0, d_output) -> None:
        torch = self.torch
        self.sequence = torch.tensor(x), torch.tensor(h_0)
        lone = self.shape.is_cell
        self.arguments = (torch.tensor(x[0]), torch.tensor(h_0[0])) if lone else self.sequence
        if self.training:
            for tensor in self.arguments:
                tensor.requires_grad_(True)
            self.d_output = torch.tensor(d_output[0] if lone else d_output)

    def _packed(self, x, h_0):
        rnn = self.torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, self.lengths, enforce_sorted=False)
        output, h_n = self.gru(packed, h_0)
        return rnn.pad_packed_sequence(output, total_length=self.shape.T)[0], h_n

    def _infer(self) -> None:
        self.result = self.model(*self.arguments)

    def _train(self) -> None:
        self.result = self.model(*self.arguments)
        wanted = (*self.arguments, *self.parameters.values())
        # autograd.grad returns fresh gradients: nothing to zero, nothing to accumulate.
        self.d_wanted = self.torch.autograd.grad(self._states(), wanted, self.d_output)

    def _states(self):
        return self.result if self.shape.is_cell else self.result[0]

    def output(self):
        return self._states().detach().numpy().reshape(self.shape.T, self.shape.N, -1)

    def gradients(self):
        dx, dh_0, *d_weights = (tensor.numpy() for tensor in self.d_wanted)
        T, N, I, H = self.shape.sizes  # noqa: E741
        named = {f"d{name}": d for name, d in zip(self.parameters, d_weights, strict=True)}
        return {"dx": dx.reshape(T, N, I), "dh_0": dh_0.reshape(-1, N, H), **named}

    def steps(self):
        cell, gru, sequence = self.cell, self.gru, self.sequence
        function = self.torch._VF.gru_cell  # what GRUCell.forward calls after its checks
        x, h = self.arguments
        parameters = self.parameters.values()
        return {
            "GRUCell": Step(lambda: cell(x, h), lambda result: result.numpy()),
            "gru_cell": Step(lambda: function(x, h, *parameters), lambda result: result.numpy()),
            "GRU": Step(lambda: gru(*sequence), lambda result: result[1][0].numpy()),
        }
