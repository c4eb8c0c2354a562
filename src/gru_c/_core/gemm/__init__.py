"""Products of packed matrices: microkernel, packing, macrokernel, and BLAS as the second engine."""
