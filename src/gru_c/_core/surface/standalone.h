/* The kernels of a program without Python: the best for its processor. In Python they are bound, and these
 * are NULL. */
#ifndef GRU_C_STANDALONE_H
#define GRU_C_STANDALONE_H

#include <stddef.h>

#ifdef GRU_C_STANDALONE
const void *gru_contexts(void);     /* of float and double */
const void *gru_int8_context(void);
#else
static inline const void *gru_contexts(void) { return NULL; }
static inline const void *gru_int8_context(void) { return NULL; }
#endif

#endif
