"""The kernels, built for AVX-512 (F, VL, DQ, BW)."""
include "kernels.pxi"
