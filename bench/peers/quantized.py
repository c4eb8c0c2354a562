"""GRUs in 8 and 16 bits of other libraries, each at its best that can be asked for.

    PyTorch   int8 (quantize_dynamic, qint8, fbgemm), float16 weights (quantize_dynamic, float16),
              bfloat16 (the module converted)
    OpenVINO  int8 (NNCF's quantization after training), bfloat16 (the precision hint)
    oneDNN    int8 (u8 activations, s8 weights), bfloat16

A class has one `precision` and one `reset_after`. oneDNN's and OpenVINO's int8 exist for the reset
gate before the product alone: oneDNN refuses lbr_gru, NNCF leaves a GRUSequence with
linear_before_reset as it is. Both take one scale for x and the state, from data like that of the
call; the conversion of x is timed in PyTorch and OpenVINO, not in oneDNN, which takes x in u8. On
AVX2 without VNNI their sums of two products saturate, which the errors show. bfloat16 of OpenVINO
and oneDNN needs AVX-512.

What there is not: NNCF's weight compression passes GRUSequence over (the model stays in float32);
quantize_dynamic of ONNX Runtime does the same with GRU, of recurrent nodes it knows LSTM alone
(DynamicQuantizeLSTM).
"""

from __future__ import annotations

import logging

import numpy as np

from . import onednn_peer, openvino_peer, torch_peer
from .base import PeerBase, Unsupported, merged_bias, to_zrn


def calibration(shape) -> list[tuple[np.ndarray, np.ndarray]]:
    """x (T, N, I) and states (N, 1, H), whose ranges say how to quantize; more of small ones."""
    rng, (T, N, I, H) = np.random.default_rng(1), shape.sizes  # noqa: E741
    count = min(max(8, 8192 // (T * N * I)), 256)
    return [(rng.standard_normal((T, N, I), np.float32),
             rng.uniform(-1, 1, (N, 1, H)).astype(np.float32)) for _ in range(count)]


# ---- PyTorch -----------------------------------------------------------------------------------


class TorchDynamic(torch_peer.Peer):
    """quantize_dynamic of a module that holds the GRU."""

    kind = ""  # of the weights, as PyTorch calls it

    def build(self) -> None:
        super().build()
        from torch.ao.quantization import quantize_dynamic

        torch = self.torch
        torch.backends.quantized.engine = "fbgemm"
        holder = torch.nn.ModuleDict({"gru": self.model}).eval()
        quantized = quantize_dynamic(holder, {torch.nn.GRU, torch.nn.GRUCell},
                                     dtype=getattr(torch, self.kind))
        self.model = quantized["gru"]


class TorchInt8(TorchDynamic):
    precision, kind = "int8", "qint8"


class TorchFloat16(TorchDynamic):
    precision = kind = "float16"


class TorchBfloat16(torch_peer.Peer):
    precision = "bfloat16"

    def build(self) -> None:
        super().build()
        self.model = self.model.bfloat16().eval()

    def _set_input(self, x, h_0, d_output) -> None:
        super()._set_input(x, h_0, d_output)
        self.arguments = tuple(tensor.bfloat16() for tensor in self.arguments)

    def output(self):
        return self._states().float().numpy().reshape(self.shape.T, self.shape.N, -1)


# ---- OpenVINO ----------------------------------------------------------------------------------


class OpenVinoBfloat16(openvino_peer.Peer):
    precision, hint = "bfloat16", "bf16"

    def build(self) -> None:
        try:
            super().build()
        except RuntimeError as error:  # held to AVX2, its oneDNN refuses it
            if "primitive descriptor" not in str(error):
                raise
            raise Unsupported("OpenVINO: no bfloat16 GRU with these instructions") from error


class OpenVinoBfloat16Before(OpenVinoBfloat16):
    reset_after = False


class OpenVinoInt8Before(openvino_peer.Peer):
    precision, reset_after = "int8", False

    def _model(self):
        import nncf

        nncf.set_log_level(logging.ERROR)
        inputs = calibration(self.shape)
        return nncf.quantize(super()._model(), nncf.Dataset(inputs), subset_size=len(inputs))


# ---- oneDNN ------------------------------------------------------------------------------------


class OneDnnBfloat16(onednn_peer.Peer):
    precision = "bfloat16"
    can_train = False

    def build(self) -> None:
        [part] = self.parts
        arrays = [to_zrn(part[name]).T.copy() for name in ("weight_ih", "weight_hh")]
        arrays += [merged_bias(part, self.reset_after), self._scales(part)]
        integers = (*self.shape.sizes, self.reset_after, self.threads)
        self._create("onednn_quantized.cpp", integers, arrays)

    def _scales(self, part) -> np.ndarray | None:
        return None


class OneDnnBfloat16Before(OneDnnBfloat16):
    reset_after = False


class OneDnnInt8Before(OneDnnBfloat16Before):
    precision = "int8"

    def _scales(self, part):
        """Of u8 = scale * x + shift, which h has, too; of s8 = scale * w, one for each output."""
        largest = max(np.abs(x).max() for x, _ in calibration(self.shape))
        rows = np.hstack([to_zrn(part[name]) for name in ("weight_ih", "weight_hh")])
        scales = [[127 / largest, 128], 127 / np.abs(rows).max(axis=1)]
        return np.concatenate(scales).astype(np.float32)


PEERS: dict[str, tuple[type[PeerBase], ...]] = {
    "torch": (TorchInt8, TorchFloat16, TorchBfloat16),
    "openvino": (OpenVinoInt8Before, OpenVinoBfloat16, OpenVinoBfloat16Before),
    "onednn": (OneDnnInt8Before, OneDnnBfloat16, OneDnnBfloat16Before),
}
