"""OpenVINO: a GRUSequence (linear_before_reset) a layer, CPU device, inference in `hint`."""

from __future__ import annotations

import numpy as np

from .base import PeerBase, Step, merged_bias, to_zrn


class Peer(PeerBase):
    name = "OpenVINO"
    distributions = ("openvino",)
    # Without a hint a CPU with bfloat16 instructions computes in bfloat16.
    hint = "f32"

    def build(self) -> None:
        import openvino as ov

        self.ov = ov
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self.hint,
        }
        self.compiled = ov.Core().compile_model(self._model(), "CPU", config)
        self.request = self.compiled.create_infer_request()

    def _model(self):
        """X (T, N, I), h_0 (N, D, H) a layer, lengths (N,) -> Y (T, D, N, H) for D directions.

        GRUSequence is defined batch-major; the plugin removes the transposes of a plain layer and
        runs oneDNN time-major, which is the layout of all other peers.
        """
        from openvino import opset13 as ops

        T, N, I, H = self.shape.sizes  # noqa: E741
        D = self.shape.directions
        x = ops.parameter([T, N, I], np.float32, name="X")
        states = [ops.parameter([N, D, H], np.float32) for _ in range(self.shape.layers)]
        lengths, inputs = ops.constant(np.full(N, T, np.int32)), [x, *states]
        if self.lengths is not None:
            lengths = ops.parameter([N], np.int32)
            inputs.append(lengths)
        y = ops.transpose(x, ops.constant(np.array([1, 0, 2])))  # batch-major
        for layer, h_0 in enumerate(states):
            if layer > 0:  # what the layer below put out, (N, D, T, H), as (N, T, D * H)
                y = ops.reshape(ops.transpose(y, ops.constant(np.array([0, 2, 1, 3]))),
                                ops.constant(np.array([N, T, D * H])), special_zero=False)
            y = ops.gru_sequence(
                y, h_0, lengths, *map(ops.constant, self._constants(layer)), H,
                "bidirectional" if D == 2 else "forward",
                linear_before_reset=self.reset_after).output(0)
        y = ops.transpose(y, ops.constant(np.array([2, 1, 0, 3])))
        return self.ov.Model([y.output(0)], inputs, "gru")

    def _constants(self, layer: int) -> list[np.ndarray]:
        """W (D, 3H, inputs), R (D, 3H, H) and B (D, 4H) of a layer, or (D, 3H)."""
        D = self.shape.directions
        parts = self.parts[layer * D : (layer + 1) * D]
        return [*(np.stack([to_zrn(part[name]) for part in parts])
                  for name in ("weight_ih", "weight_hh")),
                np.stack([merged_bias(part, self.reset_after).ravel() for part in parts])]

    def _set_input(self, x, h_0, d_output) -> None:
        states = [np.ascontiguousarray(part.swapaxes(0, 1))
                  for part in np.split(h_0, self.shape.layers)]
        self.arrays = [x, *states]
        if self.lengths is not None:
            self.arrays.append(self.lengths.astype(np.int32))
        for index, array in enumerate(self.arrays):
            self.request.set_input_tensor(index, self.ov.Tensor(array, shared_memory=True))

    def _infer(self) -> None:
        self.request.infer()

    def output(self):
        y = self.request.get_output_tensor(0).data
        return y.swapaxes(1, 2).reshape(self.shape.T, self.shape.N, -1)

    def steps(self):
        return {"infer": Step(self.request.infer, lambda _: self.output()[0])}
