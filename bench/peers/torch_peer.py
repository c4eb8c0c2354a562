"""PyTorch: torch.nn.GRU for sequences, torch.nn.GRUCell for single steps, eager mode."""

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
        self.gru = torch.nn.GRU(*sizes, dtype=dtype)
        # A lone step goes faster through the cell, forward and backward.
        self.model, suffix = (self.cell, "") if self.shape.T == 1 else (self.gru, "_l0")
        self.parameters = [getattr(self.model, name + suffix) for name in WEIGHT_NAMES]
        with torch.no_grad():
            for name in WEIGHT_NAMES:
                value = torch.from_numpy(self.weights[name])
                getattr(self.cell, name).copy_(value)
                getattr(self.gru, name + "_l0").copy_(value)

    def scope(self):
        return nullcontext() if self.training else self.torch.inference_mode()

    def _set_input(self, x, h_0, d_output) -> None:
        torch = self.torch
        self.sequence = torch.tensor(x), torch.tensor(h_0)[None]
        lone = self.shape.T == 1
        self.arguments = (torch.tensor(x[0]), torch.tensor(h_0)) if lone else self.sequence
        if self.training:
            for tensor in self.arguments:
                tensor.requires_grad_(True)
            self.d_output = torch.tensor(d_output[0] if lone else d_output)

    def _infer(self) -> None:
        self.result = self.model(*self.arguments)

    def _train(self) -> None:
        self.result = self.model(*self.arguments)
        wanted = (*self.arguments, *self.parameters)
        # autograd.grad returns fresh gradients: nothing to zero, nothing to accumulate.
        self.d_wanted = self.torch.autograd.grad(self._states(), wanted, self.d_output)

    def _states(self):
        return self.result if self.shape.T == 1 else self.result[0]

    def output(self):
        return self._states().detach().numpy().reshape(self.shape.T, self.shape.N, -1)

    def gradients(self):
        dx, dh_0, *d_weights = (tensor.numpy() for tensor in self.d_wanted)
        T, N, I, H = self.shape.sizes  # noqa: E741
        named = {f"d{name}": d for name, d in zip(WEIGHT_NAMES, d_weights, strict=True)}
        return {"dx": dx.reshape(T, N, I), "dh_0": dh_0.reshape(N, H), **named}

    def steps(self):
        cell, gru, sequence = self.cell, self.gru, self.sequence
        function = self.torch._VF.gru_cell  # what GRUCell.forward calls after its checks
        x, h = self.arguments
        parameters = self.parameters
        return {
            "GRUCell": Step(lambda: cell(x, h), lambda result: result.numpy()),
            "gru_cell": Step(lambda: function(x, h, *parameters), lambda result: result.numpy()),
            "GRU": Step(lambda: gru(*sequence), lambda result: result[1][0].numpy()),
        }
