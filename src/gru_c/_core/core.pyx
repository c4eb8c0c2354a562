"""The core without Python: one translation unit, which a C program can link without libpython.

The two entries are `forward` and `backward`; rnn/call.pxd describes a call. The rest is in the
files included here: threads, products, the recurrent layer (rnn/*.pxi, whose cimports are here,
too). At the end are functions for Python: threads and instruction sets.
"""

from libc.math cimport INFINITY, fabs, isfinite
from libc.stddef cimport ptrdiff_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from gru_c.cython_gru cimport (
    GRU_ACTIVATION_DEFAULT, GRU_ACTIVATION_ELU, GRU_ACTIVATION_LEAKY_RELU, GRU_ACTIVATION_LINEAR,
    GRU_ACTIVATION_RELU, GRU_ACTIVATION_SIGMOID, GRU_ACTIVATION_TANH, GRU_ALREADY_PACKED,
    GRU_BACKWARD, GRU_BAD_LENGTHS, GRU_BAD_OPTION, GRU_BAD_OPTIONS_SIZE, GRU_BAD_ROW, GRU_BAD_SIZE,
    GRU_BAD_THREADS, GRU_INFERENCE, GRU_MEMORY_TOO_SMALL, GRU_MISALIGNED, GRU_NO_TRAINING,
    GRU_NOT_A_MODEL, GRU_NOT_A_STREAM, GRU_NOT_CAUSAL, GRU_NOT_PACKED, GRU_NOT_SAVED,
    GRU_NULL_POINTER, GRU_OK, GRU_OTHER_DTYPE, GRU_OUT_OF_MEMORY, GRU_TRAINING,
    GRU_WEIGHTS_BFLOAT16, GRU_WEIGHTS_DTYPE, GRU_WEIGHTS_INT8, gru_model, gru_options, gru_stream,
)

from gru_c._core.gemm.context cimport (
    AS_DTYPE, BFLOAT16, BFLOAT16_BOTH, INT8, INT8_12_BITS, PANEL_BYTES, STORAGES, Activation,
    Activations, Context, GateView, Micropanels, PackedMatrix, Pointwise, Prefetch, SmallSteps,
    Storage, View2, real, rows_t,
)
from gru_c._core.parallel.pool cimport Barrier, partition, task_t
from gru_c._core.rnn.call cimport (
    BACKWARD, FINISHED, FORKED, GO_ON, HELD, INFERENCE, RESET, SILENT, SILENT_REVERSE, STOP,
    STOPPED, SUM_LEVELS, TRAINING, Call, Mode, PackedLayer, Partition, Ragged, Status, Sums,
    View3,
)
from gru_c._core.rnn.layout cimport N_PLANE, Q_PLANE, R_PLANE, Z_PLANE, leading_dimension
from gru_c._core.rnn.stack cimport Stack
from gru_c._core.sizes cimport LINE, ceil_div, copy_rows, round_up
from gru_c._core.surface.types cimport (
    MODEL_TAG, STREAM_TAG, Model, Request, Rows, SavedCall, SavedHead, Stream,
)

include "parallel/pool.pxi"
include "gemm/pack.pxi"
include "gemm/macrokernel.pxi"
include "gemm/round.pxi"
include "rnn/views.pxi"
include "rnn/plan.pxi"
include "rnn/workspace.pxi"
include "rnn/packing.pxi"
include "rnn/forward.pxi"
include "rnn/backward.pxi"
include "rnn/weight_gradients.pxi"
include "rnn/rows.pxi"
include "rnn/stack.pxi"
include "surface/model.pxi"
include "surface/calls.pxi"
include "surface/stream.pxi"
include "surface/status.pxi"


cdef Status forward(Call *calls, int count) noexcept nogil:
    """Run planned calls of mode INFERENCE or TRAINING side by side."""
    place_forward(&calls[0])
    if count == 2:
        place_forward(&calls[1])
    return run_calls_in_mode(forward_rank, calls, count)


cdef inline void place_forward(Call *call) noexcept nogil:
    """Place the buffers of a forward."""
    if call.mode == TRAINING:
        place_saved(call, call.saved)
    place_workspace(call, call.workspace)
    if call.mode == INFERENCE and call.steps == 1 and not call.states_are_slots:
        use_states_in_place(call)


cdef Status backward(Call *calls, int count) noexcept nogil:
    """Run planned calls of mode BACKWARD, after a forward with the same `saved`."""
    cdef:
        int i
        Status status
    for i in range(count):
        place_saved(&calls[i], calls[i].saved)
        place_workspace(&calls[i], calls[i].workspace)
    status = run_calls_in_mode(backward_rank, calls, count)
    if count == 2 and calls.need_dx and status == FINISHED:
        add_input_gradients(&calls[0], &calls[1])
    return status


cdef inline Status run_calls_in_mode(task_t task, Call *calls, int count) noexcept nogil:
    """Run calls, if they ask for it with denormal numbers as zeros; a team follows the caller."""
    cdef:
        unsigned long mode
        Status status
    if not calls.flush_denormals:
        return run_calls(task, calls, count)
    mode = get_fp_mode()
    if mode & FLUSH_DENORMALS == FLUSH_DENORMALS:
        return run_calls(task, calls, count)
    set_fp_mode(mode | FLUSH_DENORMALS)
    status = run_calls(task, calls, count)
    set_fp_mode(mode)
    return status


cdef inline Status run_calls(task_t task, Call *calls, int count) noexcept nogil:
    """Run one call on a team, or two at the same time, each on half of a team."""
    cdef Pair pair
    if count == 1:
        run_team(task, calls, calls.team)
        return STOPPED if calls.stop_round else FINISHED
    pair = Pair(task, calls)
    run_team(run_pair, &pair, team_of_two(calls))
    return STOPPED if calls[0].stop_round or calls[1].stop_round else FINISHED


cdef struct Pair:              # two calls, and what runs each
    task_t task
    Call *calls


cdef void run_pair(void *argument, int rank, int team) noexcept nogil:
    """The first half of the team runs the first call. One thread runs both."""
    cdef:
        Pair *pair = <Pair *> argument
        int first = team // 2
    if team == 1:
        pair.task(&pair.calls[0], 0, 1)
        if not pair.calls[0].stop_round:
            pair.task(&pair.calls[1], 0, 1)
    elif rank < first:
        if rank == 0:
            pair.calls[0].beside = &pair.calls[1]
        pair.task(&pair.calls[0], rank, first)
    else:
        if rank == first:                                  # not the caller's thread
            pair.calls[1].poll = NULL
            pair.calls[1].beside = &pair.calls[0]
        pair.task(&pair.calls[1], rank - first, team - first)


# ---- for Python ----------------------------------------------------------------------------------

cdef extern from "platform.h" nogil:
    int extensions "gru_extensions"()
    bint has_vnni "gru_vnni"(int extensions)
    bint has_bfloat16 "gru_bfloat16"()


def instruction_sets():
    """The instruction sets that this processor has, the best first."""
    return ["avx512", "avx2", "baseline"][2 - extensions():]


def int8_kernels(isa):
    """The kernels of int8 weights for an instruction set that this processor has."""
    if isa == "avx512":
        return "avx512vnni" if has_vnni(2) else int8_kernels("avx2")
    if isa == "avx2":
        return "avxvnni" if has_vnni(1) else "avx2"
    return "baseline"


def bfloat16_products(isa):
    """What multiplies bfloat16 by bfloat16: an instruction, or that of float32."""
    return "avx512bf16" if isa == "avx512" and has_bfloat16() else "as float32"


def initialize(int available, size_t blas_get_num_threads):
    """Once, at import: the number of processors, and the address of BLAS's thread count or 0."""
    start_pool(available)
    if blas_get_num_threads:
        limits.get_blas_threads = <int (*)() noexcept nogil> <void *> blas_get_num_threads
        limits.blas_at_start = limits.get_blas_threads()


def set_num_threads(count):
    """A positive integer of any size."""
    atomic_store(&limits.chosen, min(count, MAX_THREADS))


def get_num_threads():
    return max_threads()


def blas_num_threads():
    """Threads of BLAS, 0 if it does not say."""
    return limits.get_blas_threads() if limits.get_blas_threads != NULL else 0


def num_workers():
    """Threads that the pool has started, the callers not among them."""
    return atomic_load(&pool.workers)
