# cython: language_level=3, boundscheck=False, wraparound=False
"""Digits from the rows of their images: a GRU of gru_c, a linear head and argmax, without the GIL.

One packed model serves all threads. Each has a workspace and a state of its own, allocated before
the loop; the loop allocates nothing.
"""

from cython.parallel cimport prange, threadid
from gru_c.cython_gru cimport (
    GRU_INFERENCE, GRU_OK, gru_forward_f32, gru_model, gru_model_shape, gru_status_text,
    gru_workspace_size_f32,
)
from libc.stdint cimport uintptr_t

import numpy as np


cdef struct Network:
    const gru_model *gru
    const float *weight             # (classes, hidden) of the head
    const float *bias               # (classes)
    ptrdiff_t steps, hidden, classes


cdef int classify_one(const Network *network, const float *x, float *h, void *workspace,
                      size_t size) noexcept nogil:
    """The class of one sequence x (steps, inputs), or -status. Overwrites h (hidden)."""
    cdef int status = gru_forward_f32(network.gru, network.steps, 1, x, NULL, NULL, h,
                                      workspace, size, 1, NULL)
    cdef ptrdiff_t c, k
    cdef int best = 0
    cdef float score, best_score = 0
    if status != GRU_OK:
        return -status
    for c in range(network.classes):
        score = network.bias[c]
        for k in range(network.hidden):
            score += network.weight[c * network.hidden + k] * h[k]
        if c == 0 or score > best_score:
            best, best_score = c, score
    return best


cdef class Classifier:
    """A GRU and a linear head on its last hidden state.

    Parameters
    ----------
    gru : gru_c.GRU
        Of one layer and direction, in float32.
    weight : array_like of shape (classes, hidden)
    bias : array_like of shape (classes,)
    """

    cdef object handle              # keeps the packed weights that `gru` points to
    cdef const gru_model *gru
    cdef const float[:, ::1] weight
    cdef const float[::1] bias
    cdef ptrdiff_t input_size

    def __init__(self, gru, weight, bias):
        cdef ptrdiff_t shape[5]     # inputs, hidden, layers, directions, bytes of an element
        self.handle = gru.handle()
        self.gru = <const gru_model *><uintptr_t>self.handle.address
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.bias = np.ascontiguousarray(bias, np.float32)
        gru_model_shape(self.gru, shape)
        if shape[2] * shape[3] != 1 or shape[4] != sizeof(float):
            raise ValueError("gru must have one layer, one direction and dtype float32")
        if self.weight.shape[1] != shape[1] or self.bias.shape[0] != self.weight.shape[0]:
            raise ValueError("weight must be (classes, hidden), bias (classes)")
        self.input_size = shape[0]

    def __call__(self, x, int num_threads=1):
        """The class of each sequence of `x` (count, steps, inputs)."""
        cdef const float[:, :, ::1] sequences = np.ascontiguousarray(x, np.float32)
        cdef Network network
        cdef size_t size
        cdef int status
        cdef ptrdiff_t i, count = sequences.shape[0], steps = sequences.shape[1]
        if sequences.shape[2] != self.input_size or steps == 0 or num_threads < 1:
            raise ValueError(f"x must be (count, steps, {self.input_size}), num_threads at least 1")
        network = Network(self.gru, &self.weight[0, 0], &self.bias[0], steps,
                          self.weight.shape[1], self.weight.shape[0])
        status = gru_workspace_size_f32(self.gru, GRU_INFERENCE, steps, 1, 1, NULL, &size)
        if status != GRU_OK:
            raise ValueError(gru_status_text(status).decode())
        cdef unsigned char[:, ::1] workspaces = np.empty((num_threads, max(size, 1)), np.uint8)
        cdef float[:, ::1] states = np.empty((num_threads, network.hidden), np.float32)
        classes = np.empty(count, np.intc)
        cdef int[::1] results = classes
        for i in prange(count, nogil=True, num_threads=num_threads, schedule="static"):
            results[i] = classify_one(&network, &sequences[i, 0, 0], &states[threadid(), 0],
                                      &workspaces[threadid(), 0], size)
        if count and classes.min() < 0:
            raise ValueError(gru_status_text(-classes.min()).decode())
        return classes
