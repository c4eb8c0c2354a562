/* The kernels of a program without Python: the best for its processor. In Python they are bound at import. */
#ifndef GRU_C_STANDALONE_H
#define GRU_C_STANDALONE_H

#include <stddef.h>

#ifdef GRU_C_STANDALONE
const void *gru_contexts(void);
#else
static inline const void *gru_contexts(void) { return NULL; }
#endif

#endif
