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

/* A model of one layer, or NULL; the weights as gru_model_pack_f32 takes them. */
gru_model *driver_model(ptrdiff_t inputs, ptrdiff_t hidden, const float *weight_ih,
                        const float *weight_hh, const float *bias_ih, const float *bias_hh)
{
    gru_model *model = NULL;
    if (gru_model_new_f32(inputs, hidden, NULL, &model) != GRU_OK) return NULL;
    if (gru_model_pack_f32(model, 0, weight_ih, weight_hh, bias_ih, bias_hh) == GRU_OK) return model;
    gru_model_free(model);
    return NULL;
}

/* One call a pass, with one thread. `output` is (steps, H). */
int driver_forward(const gru_model *model, ptrdiff_t passes, ptrdiff_t steps, const float *x,
                   float *output)
{
    void *workspace;
    size_t size;
    int status = gru_workspace_size_f32(model, GRU_INFERENCE, steps, 1, 1, NULL, &size);
    if (status != GRU_OK) return status;
    workspace = malloc(size);
    if (workspace == NULL) return GRU_OUT_OF_MEMORY;
    for (ptrdiff_t pass = 0; pass < passes; pass++)
        status |= gru_forward_f32(model, steps, 1, x, NULL, output, NULL, workspace, size, 1, NULL);
    free(workspace);
    return status;
}
