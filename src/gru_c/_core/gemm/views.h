/* Views of matrices, which Cython and C share. All distances are in bytes. */
#ifndef GRU_C_VIEWS_H
#define GRU_C_VIEWS_H

#include <stddef.h>

enum { GRU_PANEL_BYTES = 256 }; /* of the columns of a panel of B: 4 registers of AVX-512 */

/* A matrix (rows, columns). Columns are contiguous. */
typedef struct {
    char *data;
    ptrdiff_t ld; /* from row to row */
} gru_view2;

/* The micropanels of one panel of B. */
typedef struct {
    const char *data;
    ptrdiff_t ld;     /* from row to row within a micropanel */
    ptrdiff_t stride; /* from micropanel to micropanel */
} gru_micropanels;

/* Memory to prefetch during a product, beside the rows of C: `size` bytes from `data` on. The macrokernel
 * sets `step`, at most a line: a microkernel prefetches so much further with each row of B. */
typedef struct {
    const char *data;
    ptrdiff_t size;
    ptrdiff_t step;
} gru_prefetch;

#endif
