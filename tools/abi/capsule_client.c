/* cython_client.pyx in C: the functions come from the capsule gru_c._C_API. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#define GRU_USE_CAPSULE
#include "gru_c.h"

static gru_options default_options(void)
{
    gru_options options = {sizeof(gru_options)};
    return options;
}

static PyObject *make(PyObject *self, PyObject *arguments)
{
    Py_ssize_t I, H, w_ih, w_hh, b_ih, b_hh;
    gru_options options = default_options();
    gru_model *model = NULL;
    int status;
    if (!PyArg_ParseTuple(arguments, "nnnnnn", &I, &H, &w_ih, &w_hh, &b_ih, &b_hh)) return NULL;
    options.training = 1;
    status = gru_model_new_f32(I, H, &options, &model);
    if (status == GRU_OK)
        status = gru_model_pack_f32(model, 0, (const float *)w_ih, (const float *)w_hh,
                                    (const float *)b_ih, (const float *)b_hh);
    return Py_BuildValue("in", status, (Py_ssize_t)model);
}

static PyObject *discard(PyObject *self, PyObject *arguments)
{
    Py_ssize_t model;
    if (!PyArg_ParseTuple(arguments, "n", &model)) return NULL;
    return PyLong_FromLong(gru_model_free((gru_model *)model));
}

static PyObject *forward(PyObject *self, PyObject *arguments)
{
    Py_ssize_t model, T, N, x, output;
    gru_options options = default_options();
    size_t size;
    int status;
    if (!PyArg_ParseTuple(arguments, "nnnnn", &model, &T, &N, &x, &output)) return NULL;
    const gru_model *m = (const gru_model *)model;
    status = gru_workspace_size_f32(m, GRU_INFERENCE, T, N, 1, &options, &size);
    if (status == GRU_OK) {
        void *workspace = malloc(size);
        status = gru_forward_f32(m, T, N, (const float *)x, NULL, (float *)output, NULL, workspace,
                                 size, 1, &options);
        free(workspace);
    }
    return PyLong_FromLong(status);
}

static PyObject *backward(PyObject *self, PyObject *arguments)
{
    Py_ssize_t model, T, N, x, d_output, dx;
    gru_options options = default_options();
    size_t saved_size, size, other;
    int status;
    if (!PyArg_ParseTuple(arguments, "nnnnnn", &model, &T, &N, &x, &d_output, &dx)) return NULL;
    const gru_model *m = (const gru_model *)model;
    status = gru_saved_size_f32(m, T, N, &options, &saved_size);
    if (status == GRU_OK) {
        gru_workspace_size_f32(m, GRU_TRAINING, T, N, 1, &options, &size);
        gru_workspace_size_f32(m, GRU_BACKWARD, T, N, 1, &options, &other);
        if (other > size) size = other;
        void *saved = malloc(saved_size), *workspace = malloc(size);
        status = gru_forward_training_f32(m, T, N, (const float *)x, NULL, NULL, NULL, saved,
                                          saved_size, workspace, size, 1, &options);
        if (status == GRU_OK)
            status = gru_backward_f32(m, T, N, (const float *)d_output, NULL, (float *)dx, NULL, NULL,
                                      saved, saved_size, workspace, size, 1, &options);
        free(workspace);
        free(saved);
    }
    return PyLong_FromLong(status);
}

static PyObject *steps(PyObject *self, PyObject *arguments)
{
    Py_ssize_t model, T, N, I, H, x, output;
    gru_options options = default_options();
    gru_stream *stream;
    int status;
    if (!PyArg_ParseTuple(arguments, "nnnnnnn", &model, &T, &N, &I, &H, &x, &output)) return NULL;
    status = gru_stream_new_f32((const gru_model *)model, N, 1, 1, &options, &stream);
    for (Py_ssize_t t = 0; status == GRU_OK && t < T; t++)
        status = gru_stream_step_f32(stream, (const float *)x + t * N * I,
                                     (float *)output + t * N * H);
    if (status == GRU_OK) status = gru_stream_free(stream);
    return PyLong_FromLong(status);
}

static PyMethodDef methods[] = {
    {"make", make, METH_VARARGS, NULL},       {"discard", discard, METH_VARARGS, NULL},
    {"forward", forward, METH_VARARGS, NULL}, {"backward", backward, METH_VARARGS, NULL},
    {"steps", steps, METH_VARARGS, NULL},     {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "capsule_client", NULL, -1, methods};

PyMODINIT_FUNC PyInit_capsule_client(void)
{
    if (gru_import() < 0) return NULL;
    return PyModule_Create(&definition);
}
