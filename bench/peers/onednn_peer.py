"""oneDNN's lbr_gru, called from C++ through onednn_driver.cpp: the peer without a framework.

The library and its headers come from the PyPI wheels onednn-cpu-gomp and onednn-devel-cpu-gomp,
the driver is compiled into the user's cache. Times are taken by a loop in C++.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from .base import PeerBase, Unsupported, installed, merged_bias, to_zrn
from .build import shared_library

LIBRARY, HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"


def _installed_file(distribution: str, ending: str) -> Path:
    for entry in metadata.files(distribution) or ():
        if entry.as_posix().endswith(ending):
            return Path(entry.locate()).resolve()
    raise Unsupported(f"{distribution} has no file {ending}")


@functools.cache
def load_driver(name: str, integers: int, arrays: int) -> ctypes.CDLL:
    """A driver, compiled at first use; its functions that can fail raise RuntimeError.

    Its gru_create takes so many integers and then so many arrays.
    """
    library = _installed_file(LIBRARY, "libdnnl.so.3").parent
    include = _installed_file(HEADERS, "oneapi/dnnl/dnnl.hpp").parents[2]
    flags = ["-O2", "-std=c++17", "-fopenmp", f"-I{include}", f"-L{library}", "-ldnnl"]
    flags.append(f"-Wl,-rpath,{library}")
    source = Path(__file__).with_name(name)
    path = shared_library(source, flags, [source.with_name("onednn_driver.h")])
    # TensorFlow exports its own, other oneDNN to the whole process: bind to ours first.
    driver = ctypes.CDLL(str(path), mode=ctypes.DEFAULT_MODE | getattr(os, "RTLD_DEEPBIND", 0))

    def check(result, function, arguments):
        if result != 0:
            raise RuntimeError(driver.gru_error().decode())
        return result

    driver.gru_error.restype = ctypes.c_char_p
    driver.gru_create.restype = ctypes.c_void_p
    driver.gru_create.argtypes = [ctypes.c_int] * integers + [ctypes.c_void_p] * arrays
    driver.gru_destroy.restype, driver.gru_destroy.argtypes = None, [ctypes.c_void_p]
    timed = [ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_double)]
    stepped = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    can_fail = {"set_input": [ctypes.c_void_p] * 3, "output": [ctypes.c_void_p], "time": timed,
                "steps": stepped, "gradients": [ctypes.c_void_p] * 5}
    for name, arguments in can_fail.items():
        if function := getattr(driver, f"gru_{name}", None):
            function.argtypes = [ctypes.c_void_p, *arguments]
            function.errcheck = check
    text = ctypes.create_string_buffer(32)
    if not driver.gru_version_matches(text, len(text)):
        raise Unsupported(f"another oneDNN is bound in this process: {text.value.decode()}")
    return driver


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


class Peer(PeerBase):
    name = "oneDNN (C++)"
    distributions = (LIBRARY,)
    can_train = True
    takes_lengths = False
    called_from = "C"
    handle = None

    @classmethod
    def version(cls) -> str:
        """oneDNN's own; that of the wheels counts years."""
        installed(LIBRARY)
        installed(HEADERS)
        text = _installed_file(HEADERS, "oneapi/dnnl/dnnl_version.h").read_text()
        found = dict(re.findall(r"define DNNL_VERSION_(MAJOR|MINOR|PATCH) (\d+)", text))
        return ".".join(found[part] for part in ("MAJOR", "MINOR", "PATCH"))

    def build(self) -> None:
        arrays = [np.concatenate([to_zrn(part[name]).T.ravel() for part in self.parts])
                  for name in ("weight_ih", "weight_hh")]
        arrays.append(np.stack([merged_bias(part) for part in self.parts]))
        integers = (*self.shape.sizes, self.shape.directions, self.shape.layers, self.training,
                    self.threads)
        self._create("onednn_driver.cpp", integers, arrays)

    def _create(self, driver: str, integers: Sequence[int],
                arrays: Sequence[np.ndarray | None]) -> None:
        self.driver = load_driver(driver, len(integers), len(arrays))
        self.handle = self.driver.gru_create(*integers, *map(_address, arrays))
        if not self.handle:
            raise Unsupported(f"oneDNN: {self.driver.gru_error().decode()}")

    def close(self) -> None:
        if self.handle:
            self.driver.gru_destroy(self.handle)
            self.handle = None

    __del__ = close

    def _set_input(self, x, h_0, d_output) -> None:
        self.driver.gru_set_input(self.handle, *map(_address, (x, h_0, d_output)))

    def time(self, repeats: int = 1, number: int = 1) -> float:
        seconds = ctypes.c_double()
        self.driver.gru_time(self.handle, repeats, number, ctypes.byref(seconds))
        return seconds.value

    def stream(self, x: np.ndarray, passes: int = 1, output: np.ndarray | None = None) -> None:
        """The steps of x (T, N, I) one by one, the state fed back, in a loop in C++; the peer has
        T = 1. Each pass begins with a state of zeros."""
        to = None if output is None else _address(output)
        self.driver.gru_steps(self.handle, passes, len(x), _address(x), to)

    def output(self):
        T, N, _, H = self.shape.sizes
        result = np.empty((T, N, self.shape.directions * H), np.float32)
        self.driver.gru_output(self.handle, _address(result))
        return result

    def gradients(self):
        T, N, I, H = self.shape.sizes  # noqa: E741
        D, count = self.shape.directions, len(self.parts)
        rows = np.repeat(self.shape.inputs, D)  # of w_layer, a part
        sizes = [(T, N, I), (count, N, H), (rows.sum(), 3 * H), (count, H, 3 * H), (count, 4, H)]
        arrays = [np.empty(size, np.float32) for size in sizes]
        self.driver.gru_gradients(self.handle, *map(_address, arrays))
        dx, dh_0, d_layer, d_iter, d_bias = arrays
        parts = []
        for d_ih, d_hh, (dz, dr, dn_x, dn_h) in zip(
                np.split(d_layer, rows.cumsum()[:-1]), d_iter, d_bias, strict=True):
            parts.append({
                "weight_ih": to_zrn(d_ih.T),
                "weight_hh": to_zrn(d_hh.T),
                "bias_ih": np.concatenate([dr, dz, dn_x]),
                "bias_hh": np.concatenate([dr, dz, dn_h]),
            })
        return {"dx": dx, "dh_0": dh_0} | self._by_name(parts, "d")
