/* One row of C that is one vector wide. microkernel.h includes this file once per width and sets `lone`, the type
 * of the vector, and LONE(name).
 *
 * A single chain would wait for each multiply-add to end. So four blocks of the depth run side by side, and their
 * sums are added in order: the same bits (160,1,64,200: 492 -> 472 us; AVX2 160,1,64,136: 423 -> 377). Wider rows
 * are bound by L2; two rows are level. */

#define CHAIN(i, count)                                                                                     \
    if (count > i) c##i += (a[i * block + j] - (lone){0}) * *(const lone *)(b + (i * block + j) * ldb);
#define CHAINS(count) CHAIN(0, count) CHAIN(1, count) CHAIN(2, count) CHAIN(3, count)
#define ADD_BLOCK(i) if (blocks > i) total += c##i;

/* total + the sums of 1 to 4 blocks, k rows in all: the last may be shorter. */
INLINE lone LONE(add_blocks)(const int blocks, ptrdiff_t k, ptrdiff_t block, const REAL *a, const REAL *b,
                             ptrdiff_t ldb, lone total)
{
    const ptrdiff_t last = k - (blocks - 1) * block;
    lone c0 = {0}, c1 = {0}, c2 = {0}, c3 = {0};
    ptrdiff_t j = 0;
    for (; j < last; j++) {
        CHAINS(blocks)
    }
    for (; j < block; j++) {
        CHAINS(blocks - 1)
    }
    ADD_BLOCK(0) ADD_BLOCK(1) ADD_BLOCK(2) ADD_BLOCK(3)
    return total;
}

INLINE void LONE(lone_vector)(ptrdiff_t k, ptrdiff_t block, const REAL *a, const REAL *b, ptrdiff_t ldb,
                              const char *init, char *c)
{
#define BLOCKS(count, rows) total = LONE(add_blocks)(count, rows, block, a, b, ldb, total);
    lone total = {0};
    if (init) total = *(const lone *)init;
    for (; k > 4 * block; k -= 4 * block, a += 4 * block, b += 4 * block * ldb) BLOCKS(4, 4 * block)
    if (k > 3 * block) BLOCKS(4, k)
    else if (k > 2 * block) BLOCKS(3, k)
    else if (k > block) BLOCKS(2, k)
    else BLOCKS(1, k)
    *(lone *)c = total;
}

#undef lone
#undef LONE
#undef CHAIN
#undef CHAINS
#undef ADD_BLOCK
#undef BLOCKS
