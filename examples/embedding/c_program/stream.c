/* Run a GRU over samples as they come:  ./stream model.safetensors < samples > outputs
 *
 * The model is a gru_c.GRU in float32 of one direction, written by model.save("model.safetensors").
 * A line of the input is a sample, I numbers; for each, a line of the output has the H numbers of the
 * last layer. The weights are read and packed once. After that nothing is allocated.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gru_c.h"
#include "safetensors.h"

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "stream: %s: %s\n", what, why);
    exit(1);
}

static void check(int status, const char *what)
{
    if (status != GRU_OK) fail(what, gru_status_text(status));
}

/* A parameter of a layer by PyTorch's name, for the caller to free; or NULL if the file has none. */
static float *parameter(const safetensors *file, const char *name, int layer, size_t rows, size_t columns)
{
    char full[64];
    size_t shape[2];
    snprintf(full, sizeof full, "%s_l%d", name, layer);
    if (!safetensors_shape(file, full, shape)) return NULL;
    float *values = safetensors_read(file, full, rows, columns);
    if (values == NULL) fail(full, "its shape does not go with weight_ih_l0 and weight_hh_l0");
    return values;
}

/* Layer by layer, as long as there are any. */
static int count_layers(const safetensors *file)
{
    char name[64];
    size_t shape[2];
    for (int layer = 0;; layer++) {
        snprintf(name, sizeof name, "weight_hh_l%d", layer);
        if (!safetensors_shape(file, name, shape)) return layer;
    }
}

static void pack_layer(gru_model *model, const safetensors *file, int layer, size_t inputs, size_t hidden)
{
    float *weight_ih = parameter(file, "weight_ih", layer, 3 * hidden, inputs);
    float *weight_hh = parameter(file, "weight_hh", layer, 3 * hidden, hidden);
    float *bias_ih = parameter(file, "bias_ih", layer, 3 * hidden, 1);
    float *bias_hh = parameter(file, "bias_hh", layer, 3 * hidden, 1);
    check(gru_model_pack_f32(model, layer, weight_ih, weight_hh, bias_ih, bias_hh), "gru_model_pack_f32");
    free(weight_ih);
    free(weight_hh);
    free(bias_ih);
    free(bias_hh);
}

/* A model with the weights of a file. */
static gru_model *load(const char *path, ptrdiff_t *inputs, ptrdiff_t *hidden)
{
    safetensors file;
    gru_options options = {.struct_size = sizeof options};
    gru_model *model;
    size_t w_ih[2], w_hh[2], shape[2];
    const char *problem = safetensors_open(&file, path);
    if (problem != NULL) fail(path, problem);
    if (!safetensors_shape(&file, "weight_ih_l0", w_ih) || !safetensors_shape(&file, "weight_hh_l0", w_hh))
        fail(path, "it holds no GRU in float32 with PyTorch's names");
    if (safetensors_shape(&file, "weight_ih_l0_reverse", shape)) fail(path, "it has two directions");
    *inputs = (ptrdiff_t)w_ih[1];
    *hidden = (ptrdiff_t)w_hh[1];
    options.num_layers = count_layers(&file);
    check(gru_model_new_f32(*inputs, *hidden, &options, &model), "gru_model_new_f32");
    for (int layer = 0; layer < options.num_layers; layer++)
        pack_layer(model, &file, layer, layer ? w_hh[1] : w_ih[1], w_hh[1]);
    safetensors_close(&file);
    return model;
}

static int read_sample(float *x, ptrdiff_t inputs)
{
    for (ptrdiff_t i = 0; i < inputs; i++)
        if (scanf("%f", &x[i]) != 1) return 0;
    return 1;
}

int main(int argc, char **argv)
{
    ptrdiff_t inputs, hidden;
    gru_stream *stream;
    if (argc != 2) fail("usage", "stream MODEL.safetensors < samples > outputs");
    gru_model *model = load(argv[1], &inputs, &hidden);
    check(gru_stream_new_f32(model, 1, 1, 1, NULL, &stream), "gru_stream_new_f32");
    float *x = malloc((size_t)inputs * sizeof(float)), *output = malloc((size_t)hidden * sizeof(float));
    if (x == NULL || output == NULL) fail("memory", "there is none");
    while (read_sample(x, inputs)) {
        check(gru_stream_step_f32(stream, x, output), "gru_stream_step_f32");
        for (ptrdiff_t i = 0; i < hidden; i++)
            printf("%.9g%c", output[i], i + 1 < hidden ? ' ' : '\n');
    }
    free(x);
    free(output);
    check(gru_stream_free(stream), "gru_stream_free");
    check(gru_model_free(model), "gru_model_free");
    return 0;
}
