"""Products and packing of every context: each instruction set, and BLAS over the best of them.

C = C_INIT + A . B is compared with the product in a higher precision; an error is measured by
|C_INIT| + |A| . |B|. What must not be read or written is NaN, and stays NaN.
"""

import importlib
from itertools import cycle

import numpy as np
import pytest

from gru_c._core import core, testing
from gru_c._core.gemm import blas

ISAS = core.instruction_sets()
KERNELS = {isa: importlib.import_module(f"gru_c._core.kernels_{isa}").contexts for isa in ISAS}
CONTEXTS = KERNELS | {"blas": blas.contexts(KERNELS[ISAS[0]])}
PANEL, LINE = 256, 64          # bytes

every_context = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
every_kernel = pytest.mark.parametrize("context", KERNELS.values(), ids=KERNELS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])

EXACT = {np.float32: np.float64, np.float64: np.longdouble}
TOLERANCE = {np.float32: 8 * np.finfo(np.float32).eps, np.float64: 8 * np.finfo(np.float64).eps}


def draw(*shape, dtype):
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def padded(array, n):
    """A copy (rows, n) within NaN: rows are further apart, and more than n elements are."""
    outer = np.full((array.shape[0] + 2, n + 11), np.nan, array.dtype)
    inner = outer[1:-1, 5 : 5 + n]
    inner[:, : array.shape[1]] = array
    inner[:, array.shape[1] :] = 0
    return outer, inner


def bytes_up(n, dtype, size):
    """n elements, rounded up to multiples of `size` bytes."""
    return -(-n * np.dtype(dtype).itemsize // size) * size // np.dtype(dtype).itemsize


def assert_close(c, exact, scale):
    """Compare with the product in a higher precision."""
    error = np.abs(c.astype(exact.dtype) - exact)
    assert (error <= TOLERANCE[c.dtype.type] * scale).all(), (error / scale).max()


def factors(dtype, segments, m, k, n):
    """A, B, A . B and |A| . |B|; rows of A lie within NaN."""
    a = np.full((segments, m, k + 3), np.nan, dtype)[:, :, :k]
    a[:] = draw(segments, m, k, dtype=dtype)
    b = draw(segments, k, n, dtype=dtype)
    x, y = a.astype(EXACT[dtype]), b.astype(EXACT[dtype])
    return a, b, (x @ y).sum(axis=0), (abs(x) @ abs(y)).sum(axis=0)


def check(context, kind, a, b, exact, scale, **options):
    """One product, C_INIT of a kind; C may hold what it likes where it is not C_INIT."""
    dtype, m, n = a.dtype.type, a.shape[1], b.shape[2]
    written = bytes_up(n, dtype, testing.blocking(context, dtype)[-1])
    init = draw(m, n, dtype=dtype)
    outer, c = padded(init if kind == "c" else np.full((m, written), np.nan, dtype), written)
    c_init = {"c": c, "matrix": padded(init, written)[1], "zeros": None,
              "row": padded(init[:1], written)[1][0]}[kind]
    init = {"row": init[:1], "zeros": np.zeros((1, n), dtype)}.get(kind, init)
    testing.multiply(context, a, b, c_init, c, **options)
    assert_close(c[:, :n], exact + init, scale + abs(init))
    assert not c[:, n:].any()                              # of the padding: zeros + 0
    c[:] = np.nan
    assert np.isnan(outer).all()                           # nothing beside C
    return c


@every_context
@every_dtype
@pytest.mark.parametrize("k", [1, 2, 63, 64, 65, 130, 1024, 1025, 1100])
def test_shapes(context, dtype, k):
    kinds = cycle(["zeros", "c", "row", "matrix", "zeros"])
    widest = 2 * PANEL // np.dtype(dtype).itemsize + 21
    a, b, exact, scale = factors(dtype, 1, 13, k, widest)
    for m in range(1, 14):
        for n in [*range(1, PANEL // 4 + 1, 7), 64, widest] if m < 9 else [60, widest]:
            check(context, next(kinds), a[:, :m], b[:, :, :n], exact[:m, :n], scale[:m, :n],
                  prefetch=[None, b, b[:0]][(m + n) % 3])


@every_context
@every_dtype
@pytest.mark.parametrize("kind", ["zeros", "c", "row", "matrix"])
def test_segments(context, dtype, kind):
    for segments, m, k, n in [(2, 7, 33, 24), (3, 2, 100, 100), (3, 13, 64, 130)]:
        check(context, kind, *factors(dtype, segments, m, k, n))
    check(context, kind, *factors(dtype, 2, 5, 1030, 40))


@every_context
@every_dtype
def test_strides_of_b(context, dtype):
    a, b, exact, scale = factors(dtype, 2, 5, 50, 90)
    transposed = np.ascontiguousarray(b.transpose(0, 2, 1)).transpose(0, 2, 1)
    spaced = np.repeat(b, 2, axis=2)[:, :, ::2]
    for strided in (transposed, spaced):
        check(context, "zeros", a, strided, exact, scale)
        np.testing.assert_array_equal(testing.pack(context, strided), testing.pack(context, b))


@every_context
@every_dtype
@pytest.mark.parametrize("halves", [(2, 2), (2, 4), (1, 3), (3, 7), (5, 6)])
def test_columns(context, dtype, halves):
    half = PANEL // 2 // np.dtype(dtype).itemsize
    a, b, exact, scale = factors(dtype, 1, 6, 40, 7 * half)
    first, last = halves
    inside = slice(first * half, last * half)
    for prefetch in (None, b):
        c = np.full((6, 7 * half), np.nan, dtype)
        testing.multiply(context, a, b, np.zeros_like(c), c,
                         columns=(first * PANEL // 2, last * PANEL // 2), prefetch=prefetch)
        assert_close(c[:, inside], exact[:, inside], scale[:, inside])
        c[:, inside] = np.nan
        assert np.isnan(c).all()


@every_context
@every_dtype
@pytest.mark.parametrize("n", [1, 16, 33, 64, 65, 72, 73, 200])
def test_pack_round_trip(context, dtype, n):
    """The last panel has whole lines, or behind others half a line where that is enough."""
    itemsize, _, nr, _, unit = testing.blocking(context, dtype)
    segments, k = 2, 5
    b = draw(segments, k, n, dtype=dtype)
    packed = testing.pack(context, b)
    whole = bytes_up(n, dtype, LINE)
    unpacked = np.zeros((segments, k, whole), dtype)
    for first in range(0, whole, PANEL // itemsize):
        width = min(PANEL // itemsize, whole - first)
        if first and bytes_up(n - first, dtype, unit) <= LINE // 2 // itemsize:
            width = LINE // 2 // itemsize
        step = min(nr // itemsize, width)
        for j in range(first, first + width, step):
            part = packed[segments * k * j : segments * k * (j + step)]
            unpacked[:, :, j : j + step] = part.reshape(segments, k, step)
    np.testing.assert_array_equal(unpacked[:, :, :n], b)
    assert not unpacked[:, :, n:].any()


def heights(m, mr):
    """Blocks of nearly equal height."""
    blocks = -(-m // mr)
    return [(m + i) // blocks for i in range(blocks)][::-1]


@every_context
@every_dtype
def test_pack_a(context, dtype):
    _, mr, *_ = testing.blocking(context, dtype)
    for m in [1, 5, 6, 7, 13, 64, 65, 150]:
        _, a = padded(draw(9, m, dtype=dtype), m)
        packed = testing.pack_transposed(context, a)
        blocks = heights(m, mr)
        assert packed.shape == (len(blocks) * mr * 9,)
        first = 0
        for block, height in zip(packed.reshape(-1, 9, mr), blocks, strict=True):
            np.testing.assert_array_equal(block[:, :height], a[:, first : first + height])
            first += height


@every_context
@every_dtype
@pytest.mark.parametrize("in_place", [False, True])
def test_packed(context, dtype, in_place):
    wide = PANEL // np.dtype(dtype).itemsize
    kinds = cycle([False, True])
    for k in [1, 64, 65, 256, 300]:
        a, b, exact, scale = factors(dtype, 1, 150, k, wide)
        _, transposed = padded(a[0].T, 150)
        for m in [*range(1, 14), 64, 65, 150]:
            n = 1 + 7 * m % wide
            written = bytes_up(n, dtype, testing.blocking(context, dtype)[-1])
            _, rows = padded(b[0, :, :n], written)
            accumulate = next(kinds)
            init = draw(m, n, dtype=dtype) if accumulate else np.full((m, n), np.nan, dtype)
            outer, c = padded(init, written)
            testing.multiply_packed(context, transposed[:, :m], rows, accumulate, c, in_place)
            init = np.nan_to_num(init)
            assert_close(c[:, :n], exact[:m, :n] + init, scale[:m, :n] + abs(init))
            c[:] = np.nan
            assert np.isnan(outer).all()


def product(context, a, b, **options):
    c = np.zeros((a.shape[1], bytes_up(b.shape[2], a.dtype, LINE)), a.dtype)
    testing.multiply(context, a, b, None, c, **options)
    return c


@every_kernel
@every_dtype
@pytest.mark.parametrize("k", [7, 130, 150, 200, 1100])
@pytest.mark.parametrize("n", [68, 72, 80, 100])
def test_bits_of_a_row(context, dtype, k, n):
    """They depend neither on the rows beside it nor on prefetching."""
    a, b, *_ = factors(dtype, 1, 13, k, n)
    c = product(context, a, b)
    for row in range(13):
        for rows in (1, 2):
            part = product(context, a[:, row : row + rows], b)
            np.testing.assert_array_equal(part, c[row : row + rows])
    np.testing.assert_array_equal(product(context, a, b, prefetch=b), c)


@pytest.mark.skipif("avx512" not in ISAS, reason="one instruction set with FMA")
@every_dtype
@pytest.mark.parametrize("m", [1, 2, 6])
def test_bits_of_instruction_sets(dtype, m):
    for k, n in [(3, 150), (64, 150), (150, 150), (1100, 150), (200, 72), (1100, 80)]:
        a, b, *_ = factors(dtype, 1, m, k, n)
        np.testing.assert_array_equal(product(KERNELS["avx2"], a, b),
                                      product(KERNELS["avx512"], a, b))
