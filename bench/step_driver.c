/* Loops over steps of gru_c in C, which reach it through the capsule gru_c._C_API: for step_ways.py.
 * `passes` times the `steps` steps of x (steps, inputs), one row, each pass from a state of zeros. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define GRU_USE_CAPSULE
#include "gru_c.h"

/* With the GIL held; 0, or -1 with an exception set. */
int driver_import(void) { return gru_import(); }

/* One call a step. `output` is (steps, H) for a stride of H, and (H), written again and again, for 0.
 * Statuses are joined: 0 where all were. */
int driver_stream(gru_stream *stream, ptrdiff_t passes, ptrdiff_t steps, ptrdiff_t inputs,
                  const float *x, float *output, ptrdiff_t stride)
{
    int status = GRU_OK;
    for (ptrdiff_t pass = 0; pass < passes; pass++) {
        status |= gru_stream_reset_f32(stream, NULL);
        for (ptrdiff_t t = 0; t < steps; t++)
            status |= gru_stream_step_f32(stream, x + t * inputs, output + t * stride);
    }
    return status;
}

/* One call a pass, with one thread. `output` is (steps, H). */
int driver_forward(const gru_model *model, ptrdiff_t passes, ptrdiff_t steps, const float *x,
                   float *output, void *workspace, size_t workspace_size)
{
    int status = GRU_OK;
    for (ptrdiff_t pass = 0; pass < passes; pass++)
        status |= gru_forward_f32(model, steps, 1, x, NULL, output, NULL, workspace, workspace_size,
                                  1, NULL);
    return status;
}
