"""What the rest of `_core` calls: packing, sizes, the two entries, threads. See rnn/call.pxd."""

from gru_c._core.gemm.context cimport Activations, Context, real
from gru_c._core.rnn.call cimport Call, PackedLayer, Ragged, Status
from gru_c._core.rnn.stack cimport Stack

cdef void init_layer(PackedLayer *layer, const Context *context, Py_ssize_t input_size,
                     Py_ssize_t hidden_size, bint reset_after) noexcept nogil
cdef void set_activations(PackedLayer *layer, Activations activations) noexcept nogil
cdef size_t place_forward_weights(PackedLayer *layer, void *memory) noexcept nogil
cdef size_t place_backward_weights(PackedLayer *layer, void *memory) noexcept nogil
cdef void pack_forward_weights(PackedLayer *layer, const real *weight_ih, const real *weight_hh,
                               const real *bias_ih, const real *bias_hh) noexcept nogil
cdef void pack_backward_weights(
    PackedLayer *layer, const real *weight_ih, const real *weight_hh) noexcept nogil

cdef size_t saved_size(Call *call) noexcept nogil
cdef size_t workspace_size(Call *call, int count) noexcept nogil
cdef Status forward(Call *calls, int count) noexcept nogil
cdef Status backward(Call *calls, int count) noexcept nogil

# All layers of a model
cdef void plan_stack(Stack *stack, Call *calls) noexcept nogil
cdef void connect_stack(const Stack *stack, Call *calls, void *memory) noexcept nogil
cdef size_t saved_size_of(const Stack *stack, Call *calls, Py_ssize_t index) noexcept nogil
cdef void connect_saved(
    const Stack *stack, Call *calls, Py_ssize_t index, void *memory) noexcept nogil
cdef Status run_stack(const Stack *stack, Call *calls) noexcept nogil

# Rows that differ
cdef bint sort_rows(const Py_ssize_t *given, Py_ssize_t rows, Py_ssize_t steps, Ragged *ragged,
                    Py_ssize_t *firsts) noexcept nogil
cdef void mark_rows(const unsigned char *mask, const unsigned char *resets, const Ragged *ragged,
                    Py_ssize_t steps, Py_ssize_t rows, unsigned char *marks) noexcept nogil

# Windows of a sequence: whole multiples of so many steps, and the blocks of rows in one.
cdef Py_ssize_t sum_steps(Py_ssize_t rows) noexcept nogil
cdef Py_ssize_t sum_blocks(Py_ssize_t steps, Py_ssize_t rows, const Ragged *ragged) noexcept nogil

cdef int max_threads() noexcept nogil
cdef int fork_count() noexcept nogil
