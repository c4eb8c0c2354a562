"""The core and the functions of gru_c.h in one translation unit, for the static library.

tools/make_static_library.py compiles it, with the functions `cdef public`, so that C finds them by
their names. It is no module of the package.
"""

include "core.pyx"
include "surface/functions.pxi"


cdef public void gru_start_pool(int processors) noexcept nogil:
    """Once, before the first call on several threads."""
    start_pool(processors)
