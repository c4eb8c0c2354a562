"""gru_c for other packages: the functions of gru_c.h, from Cython, C, Numba and ctypes.

`cython_gru.pxd` declares them, `_C_API` is a capsule of their table. See docs/embedding.md.
"""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport uintptr_t

from gru_c._core.core cimport (
    backward_for, forward_for, model_free, model_init, model_new, model_pack, model_shape,
    model_size, saved_size_for, status_text, stream_copy_rows, stream_free, stream_get_state,
    stream_init, stream_new, stream_reset, stream_run, stream_set_state, stream_size,
    workspace_size_for,
)
from gru_c._core.rnn.call cimport INFERENCE, TRAINING

import sys

from gru_c._config import __version__
from gru_c._core import load_quantized

include "_core/surface/functions.pxi"

load_quantized()                                           # functions that hold no GIL cannot

cdef extern from *:
    """
    static gru_api gru_table;
    static void **const gru_table_slots = (void **)&gru_table.gru_status_text;
    #define GRU_NAME(name, arguments) #name,
    static const char *const gru_table_names[] = {
        "gru_status_text",
        GRU_ALL_FUNCTIONS(GRU_NAME)
        NULL
    };
    """
    ctypedef struct gru_api:
        size_t struct_size
        int abi_version
        const char *version
    gru_api gru_table
    void **gru_table_slots
    const char **gru_table_names


def entries():
    """(address, signature) of each function of gru_c.h by its name, in the order of the table."""
    cdef:
        const char *signature
        int i = 0
    found, exported = {}, sys.modules[__name__].__pyx_capi__
    while gru_table_names[i] != NULL:
        name = gru_table_names[i].decode()
        signature = PyCapsule_GetName(exported[name])
        found[name] = (<uintptr_t> PyCapsule_GetPointer(exported[name], signature),
                       signature.decode())
        i += 1
    return found


cdef bytes version = __version__.encode()                  # lives as long as the module


cdef int fill_table() except -1:
    """The functions that this module exports, in the order of the header."""
    cdef int i
    gru_table.struct_size, gru_table.abi_version = sizeof(gru_api), GRU_ABI_VERSION
    gru_table.version = version
    for i, (address, _) in enumerate(entries().values()):
        gru_table_slots[i] = <void *> <uintptr_t> address
    return 0


fill_table()

_C_API = PyCapsule_New(&gru_table, "gru_c._C_API", NULL)
