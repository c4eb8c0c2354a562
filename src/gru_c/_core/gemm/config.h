/* All sizes that belong to an instruction set. They follow from the compiler's flags. Other code takes the
 * blocking from the Context (context.pxd). */
#ifndef GRU_C_CONFIG_H
#define GRU_C_CONFIG_H

#if defined(__AVX512F__)
#define GRU_VECTOR_BYTES 64
#define GRU_NR_VECTORS 4 /* a microtile of 6 x 4 sums leaves 8 of the 32 registers free */
#elif defined(__AVX2__)
#define GRU_VECTOR_BYTES 32
#define GRU_NR_VECTORS 2 /* 6 x 2 of 16 registers */
#elif defined(__aarch64__)
#define GRU_VECTOR_BYTES 16
#define GRU_NR_VECTORS 4
#else
#define GRU_VECTOR_BYTES 16
#define GRU_NR_VECTORS 2
#endif

/* Rows of a microtile. */
#define GRU_MR 6

/* Bytes of a row of a micropanel, as wide as a microtile. */
#define GRU_NR (GRU_NR_VECTORS * GRU_VECTOR_BYTES)

/* Rows of B between two visits to C. A microkernel reads a row of a micropanel every 12 to 24 cycles, which L2
 * supplies with ease, so blocks are long: of 128, 512 and 1024 rows 70, 90 and 100 GFLOP/s (50,16,512,1024). */
#define GRU_KC 1024

/* Bytes of which n is a multiple: half a vector of AVX-512. */
#define GRU_UNIT 32

/* The longest chain of multiply-adds. Of 32, 64 and 128, 64 has the least error. */
#define GRU_CHAIN 64

/* The most rows whose C stays in registers beside the sums, where there are 32 registers. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define GRU_KEEP_ROWS 2
#else
#define GRU_KEEP_ROWS 0
#endif

/* Prefetch distances, in rows: of the pointwise functions, and of packing. */
#define GRU_PREFETCH_ROWS 4
#define GRU_PACK_PREFETCH_ROWS 8

#endif
