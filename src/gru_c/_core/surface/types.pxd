"""What the handles of gru_c.h point to, and one call on its way from there to the core."""

from gru_c._core.gemm.context cimport Context, Storage
from gru_c._core.rnn.call cimport Call, Mode, PackedLayer, Ragged, View3
from gru_c._core.rnn.stack cimport Stack
from gru_c.cython_gru cimport gru_options

# First in a model and in a stream; another version of the library has others.
cdef extern from *:
    """
    #define GRU_MODEL_TAG (0x4d555247u + 0x01000000u * GRU_ABI_VERSION)
    #define GRU_STREAM_TAG (0x53555247u + 0x01000000u * GRU_ABI_VERSION)
    """
    const unsigned int MODEL_TAG "GRU_MODEL_TAG"
    const unsigned int STREAM_TAG "GRU_STREAM_TAG"

cdef struct Model:
    unsigned int tag           # MODEL_TAG
    const Context *context     # of the dtype and the storage
    Storage storage            # of each W_ih
    void *allocated            # what gru_model_free frees, or NULL
    int serial                 # no other model of the process has it
    Py_ssize_t input_size
    Py_ssize_t hidden_size
    Py_ssize_t directions      # of a layer
    Py_ssize_t count           # layers times directions
    Py_ssize_t packed          # of them have weights; when all have, the model never changes again
    bint reset_after
    bint reverse               # the lone direction
    bint training              # has the weights of the backward
    PackedLayer *layers        # (count)
    unsigned char *is_packed   # (count)

# Options of rows, in memory of a call or of its saved activations.
cdef struct Rows:
    bint is_ragged
    bint has_options
    bint output_is_h
    bint has_held_steps
    Ragged ragged
    Py_ssize_t *firsts         # for the sorting
    unsigned char *marks       # (T, N), or NULL
    View3 *multipliers         # (count, 3), or NULL

# What a backward needs to know of its forward; at the start of `saved`.
cdef struct SavedHead:
    const Model *model
    int serial                 # of the model
    size_t size                # of all that was given
    Py_ssize_t steps           # as the caller gave them
    Py_ssize_t rows
    Py_ssize_t run             # steps of the longest row
    Rows options
    SavedCall *calls           # (count)

cdef struct SavedCall:
    View3 input
    bint x_stays
    void *saved

# One function of gru_c.h that runs, and its arguments.
cdef struct Request:
    const Model *model
    const gru_options *options
    gru_options copy           # of options of an older version
    Mode mode
    Py_ssize_t steps           # as the caller gave them
    Py_ssize_t rows
    int threads
    View3 x
    View3 output               # in a backward d_output
    View3 dx
    char *first_states         # h_0, in a backward d_h_n; or NULL
    char *last_states          # h_n, in a backward dh_0; or NULL
    char **gradients           # or NULL

cdef struct Stream:
    unsigned int tag           # STREAM_TAG
    const Model *model
    void *allocated            # what gru_stream_free frees, or NULL
    Py_ssize_t rows
    Py_ssize_t max_steps
    Py_ssize_t planned         # steps that the calls are planned for; 0: not yet
    int threads
    int slot                   # which of `states` the next step reads
    View3 x                    # of the caller's arrays: the distances
    View3 output
    char *states[2]            # (count, N, ld_h): slots of h of all layers
    Stack stack
    Call *calls                # (count)
    char *memory               # of the stack
    size_t size
