"""ONNX Runtime: a GRU node (linear_before_reset=1) a layer, CPU provider, inference in float32."""

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
        """X (T, N, I), h_0 (D, N, H) a layer, lengths (N,) -> Y (T, D, N, H) for D directions."""
        from onnx import TensorProto, checker, helper, numpy_helper

        T, N, I, H = self.shape.sizes  # noqa: E741
        D = self.shape.directions
        lengths = "" if self.lengths is None else "lengths"
        direction = "bidirectional" if D == 2 else "forward"
        constants, nodes, x = {}, [], "X"
        for layer, states in enumerate(self._states()):
            if layer > 0:  # what the layer below put out, as (T, N, D * H)
                constants["joined"] = np.array([T, N, D * H])
                nodes.append(helper.make_node("Transpose", [f"Y{layer - 1}"], [f"T{layer}"],
                                              perm=(0, 2, 1, 3)))
                nodes.append(helper.make_node("Reshape", [f"T{layer}", "joined"], [f"X{layer}"]))
                x = f"X{layer}"
            weights = self._constants(layer)
            constants |= weights
            last = layer == self.shape.layers - 1
            nodes.append(helper.make_node(
                "GRU", [x, *weights, lengths, states], ["Y" if last else f"Y{layer}"],
                hidden_size=H, linear_before_reset=1, direction=direction))
        sizes = {"X": (T, N, I), **dict.fromkeys(self._states(), (D, N, H)), "Y": (T, D, N, H)}
        *inputs, output = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
                           for name, size in sizes.items()]
        if lengths:
            inputs.append(helper.make_tensor_value_info(lengths, TensorProto.INT32, (N,)))
        initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "gru", inputs, [output], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        checker.check_model(model)
        return model.SerializeToString()

    def _states(self) -> list[str]:
        """The name of h_0 of each layer."""
        return [f"h_0_l{layer}" for layer in range(self.shape.layers)]

    def _constants(self, layer: int) -> dict[str, np.ndarray]:
        """W (D, 3H, inputs), R (D, 3H, H) and B (D, 6H) of a layer."""
        D = self.shape.directions
        parts = [{name: to_zrn(value) for name, value in part.items()}
                 for part in self.parts[layer * D : (layer + 1) * D]]
        return {
            f"W{layer}": np.stack([part["weight_ih"] for part in parts]),
            f"R{layer}": np.stack([part["weight_hh"] for part in parts]),
            f"B{layer}": np.stack([np.concatenate([part["bias_ih"], part["bias_hh"]])
                                   for part in parts]),
        }

    def _set_input(self, x, h_0, d_output) -> None:
        T, N, H = self.shape.T, self.shape.N, self.shape.H
        self.feed = {"X": x, **dict(zip(self._states(), np.split(h_0, self.shape.layers),
                                        strict=True))}
        if self.lengths is not None:
            self.feed["lengths"] = self.lengths.astype(np.int32)
        self.result = np.empty((T, self.shape.directions, N, H), self.dtype)
        make = self.ort.OrtValue.ortvalue_from_numpy  # on the CPU it shares the array's memory
        self.binding = self.session.io_binding()
        for name, array in self.feed.items():
            self.binding.bind_ortvalue_input(name, make(array))
        self.binding.bind_ortvalue_output("Y", make(self.result))

    def _infer(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def output(self):
        y = self.binding.get_outputs()[0].numpy()
        return y.swapaxes(1, 2).reshape(self.shape.T, self.shape.N, -1)

    def steps(self):
        session, feed, binding = self.session, self.feed, self.binding
        bound = Step(lambda: session.run_with_iobinding(binding), lambda _: self.output()[0])
        plain = Step(lambda: session.run(None, feed), lambda result: result[0][0, 0])
        return {"run": plain, "io_binding": bound}
