"""ONNX Runtime: one GRU node (linear_before_reset=1) on the CPU provider, inference in float32."""

from __future__ import annotations

import numpy as np

from .base import PeerBase, Step, installed, to_zrn


class Peer(PeerBase):
    name = "ONNX Runtime"
    distributions = ("onnxruntime",)
    obeys_avx2_env = False  # its MLAS kernels ask cpuid and nothing else

    @classmethod
    def version(cls) -> str:
        installed("onnx")  # makes the model
        return super().version()

    def build(self) -> None:
        import onnxruntime as ort

        self.ort = ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(self._model(), options, providers)

    def _model(self) -> bytes:
        """A graph of one node: X (T, N, I), h_0 (1, N, H) -> Y (T, 1, N, H)."""
        from onnx import TensorProto, checker, helper, numpy_helper

        T, N, I, H = self.shape.sizes  # noqa: E741
        zrn = {name: to_zrn(value) for name, value in self.weights.items()}
        constants = {
            "W": zrn["weight_ih"][None],
            "R": zrn["weight_hh"][None],
            "B": np.concatenate([zrn["bias_ih"], zrn["bias_hh"]])[None],
        }
        inputs = ["X", "W", "R", "B", "", "h_0"]
        node = helper.make_node("GRU", inputs, ["Y"], hidden_size=H, linear_before_reset=1)
        sizes = {"X": (T, N, I), "h_0": (1, N, H), "Y": (T, 1, N, H)}
        described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
                     for name, size in sizes.items()]
        initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph([node], "gru", described[:2], described[2:], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        checker.check_model(model)
        return model.SerializeToString()

    def _set_input(self, x, h_0, d_output) -> None:
        T, N, H = self.shape.T, self.shape.N, self.shape.H
        self.feed = {"X": x, "h_0": h_0[None]}
        self.result = np.empty((T, 1, N, H), self.dtype)
        make = self.ort.OrtValue.ortvalue_from_numpy  # on the CPU it shares the array's memory
        self.binding = self.session.io_binding()
        for name, array in self.feed.items():
            self.binding.bind_ortvalue_input(name, make(array))
        self.binding.bind_ortvalue_output("Y", make(self.result))

    def _infer(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def output(self):
        return self.binding.get_outputs()[0].numpy()[:, 0]

    def steps(self):
        session, feed, binding = self.session, self.feed, self.binding
        bound = Step(lambda: session.run_with_iobinding(binding), lambda _: self.output()[0])
        plain = Step(lambda: session.run(None, feed), lambda result: result[0][0, 0])
        return {"run": plain, "io_binding": bound}
