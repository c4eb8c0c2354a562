# Weights of float in fewer bits: packed, and read back. The formats are those of `Storage`
# (context.pxd); reference_quantized.py has the same in NumPy.

from libc.math cimport rintf
from libc.stdint cimport int8_t, int32_t, uint16_t, uint32_t

cdef extern from "gemm/rounding.h" nogil:
    uint16_t as_bfloat16 "gru_as_bfloat16"(float x)

cdef enum:
    SCALE_LINE                 # the first lines of int8
    OFFSET_LINE
    FIRST_GROUP

cdef float TINY_SCALE = 2.0 ** -107    # weights of one unit whose scale is smaller count as zero


cdef void pack_rounded(PackedMatrix *packed, const float *weight, Py_ssize_t units) noexcept nogil:
    """Fill a matrix of one segment from the rows of `weight`. The memory must be zeroed."""
    cdef Py_ssize_t unit, k = packed.k
    for unit in range(units):
        if is_bfloat16(packed.storage):
            pack_bfloat16(k, weight + unit * k, micropanels_of(packed, unit * sizeof(float)))
        else:
            pack_int8(k, weight + unit * k, packed.context.int8_offset,
                      micropanels_of(packed, unit * sizeof(float)))


cdef void unpack_rounded(const PackedMatrix *packed, Py_ssize_t units,
                         float *weight) noexcept nogil:
    """Read back the values that products use; packed again, they make the same bits."""
    cdef:
        Py_ssize_t unit, k
        Micropanels column
    for unit in range(units):
        column = micropanels_of(packed, unit * sizeof(float))
        for k in range(packed.k):
            if packed.storage == AS_DTYPE:
                weight[k] = (<const float *> (column.data + k * column.ld))[0]
            elif is_bfloat16(packed.storage):
                weight[k] = widened(bfloat16_at(&column, k)[0])
            else:
                weight[k] = int8_at(&column, k)[0] * (<const float *> column.data)[SCALE_LINE]
        weight += packed.k


# ---- bfloat16 ------------------------------------------------------------------------------------

cdef inline uint16_t *bfloat16_at(const Micropanels *column, Py_ssize_t k) noexcept nogil:
    return <uint16_t *> (column.data + k // 2 * column.ld) + k % 2


cdef void pack_bfloat16(Py_ssize_t k, const float *weight, Micropanels column) noexcept nogil:
    """One column."""
    cdef Py_ssize_t i
    for i in range(k):
        bfloat16_at(&column, i)[0] = as_bfloat16(weight[i])


cdef void round_all(Py_ssize_t count, float *weights) noexcept nogil:
    """Weights that stay float: their values are those of bfloat16."""
    cdef Py_ssize_t i
    for i in range(count):
        weights[i] = widened(as_bfloat16(weights[i]))


cdef inline float widened(uint16_t bfloat16) noexcept nogil:
    cdef:
        uint32_t bits = <uint32_t> bfloat16 << 16
        float value
    memcpy(&value, &bits, sizeof(bits))
    return value


# ---- int8 ----------------------------------------------------------------------------------------

cdef inline int8_t *int8_at(const Micropanels *column, Py_ssize_t k) noexcept nogil:
    return <int8_t *> (column.data + (FIRST_GROUP + k // 4) * column.ld) + k % 4


cdef void pack_int8(Py_ssize_t k, const float *weight, int offset,
                    Micropanels column) noexcept nogil:
    """One column: its scale, what its sums begin at, its weights / scale from -127 to 127."""
    cdef:
        float scale = int8_scale(k, weight)
        int32_t total = 0
        uint32_t begin
        Py_ssize_t i
        int8_t value
    for i in range(k if scale > 0 else 0):
        value = <int8_t> rintf(weight[i] / scale)
        int8_at(&column, i)[0] = value
        total += value
    (<float *> (column.data + SCALE_LINE * column.ld))[0] = scale
    begin = <uint32_t> offset * <uint32_t> total           # modulo 2^32, as the sums
    (<uint32_t *> (column.data + OFFSET_LINE * column.ld))[0] = -begin


cdef float int8_scale(Py_ssize_t k, const float *weight) noexcept nogil:
    """The largest weight / 127; NaN if one is not finite.

    It has 16 bits, so that an integer times it is exact, and packed again makes the same.
    """
    cdef:
        float most = 0, scale
        Py_ssize_t i
        uint32_t bits
    for i in range(k):
        if not isfinite(weight[i]):
            return weight[i] - weight[i]
        most = max(most, abs(weight[i]))
    scale = most / 127
    memcpy(&bits, &scale, sizeof(bits))
    bits &= <uint32_t> 0xffffff00
    memcpy(&scale, &bits, sizeof(bits))
    return scale if scale >= TINY_SCALE else 0
