"""OpenVINO: one GRUSequence (linear_before_reset) on the CPU device, inference in float32."""

from __future__ import annotations

import numpy as np

from .base import PeerBase, Step, merged_bias, to_zrn


class Peer(PeerBase):
    name = "OpenVINO"
    distributions = ("openvino",)

    def build(self) -> None:
        import openvino as ov

        self.ov = ov
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            # Without this a CPU with bfloat16 instructions computes in bfloat16.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.compiled = ov.Core().compile_model(self._model(), "CPU", config)
        self.request = self.compiled.create_infer_request()

    def _model(self):
        """X (T, N, I), h_0 (N, 1, H) -> Y (T, 1, N, H).

        GRUSequence is defined batch-major; the plugin removes the two transposes and runs oneDNN
        time-major, which is the layout of all other peers.
        """
        from openvino import opset13 as ops

        T, N, I, H = self.shape.sizes  # noqa: E741
        x = ops.parameter([T, N, I], np.float32, name="X")
        h_0 = ops.parameter([N, 1, H], np.float32, name="h_0")
        arrays = [
            np.full(N, T, np.int32),
            to_zrn(self.weights["weight_ih"])[None],
            to_zrn(self.weights["weight_hh"])[None],
            merged_bias(self.weights).reshape(1, -1),
        ]
        batch_major = ops.transpose(x, ops.constant(np.array([1, 0, 2])))
        constants = map(ops.constant, arrays)
        sequence = ops.gru_sequence(
            batch_major, h_0, *constants, H, "forward", linear_before_reset=True)
        y = ops.transpose(sequence.output(0), ops.constant(np.array([2, 1, 0, 3])))
        return self.ov.Model([y.output(0)], [x, h_0], "gru")

    def _set_input(self, x, h_0, d_output) -> None:
        self.arrays = [x, h_0[:, None]]
        for index, array in enumerate(self.arrays):
            self.request.set_input_tensor(index, self.ov.Tensor(array, shared_memory=True))

    def _infer(self) -> None:
        self.request.infer()

    def output(self):
        return self.request.get_output_tensor(0).data[:, 0]

    def steps(self):
        return {"infer": Step(self.request.infer, lambda _: self.output()[0])}
