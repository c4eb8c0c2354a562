/* gru_blocks: pack(weights) and forward(model, x, output) for anything with a buffer of floats.
 *
 * The functions of gru_c come from its capsule, so nothing is linked. NumPy is not used here: the
 * buffer protocol has all that is needed, and array.array or memoryview would do as well.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define GRU_USE_CAPSULE
#include "gru_c.h"

/* ---- buffers */

/* A contiguous buffer of `dims` dimensions of float. Returns 0, or -1 with an exception set. */
static int get_floats(PyObject *object, int dims, int flags, Py_buffer *view)
{
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags) < 0) return -1;
    if (view->ndim == dims && strcmp(view->format, "f") == 0) return 0;
    PyErr_Format(PyExc_ValueError, "expected a float32 array of %d dimensions", dims);
    PyBuffer_Release(view);
    return -1;
}

static PyObject *fail(int status)
{
    PyErr_SetString(status == GRU_OUT_OF_MEMORY ? PyExc_MemoryError : PyExc_ValueError,
                    gru_status_text(status));
    return NULL;
}

/* ---- a model, in a capsule that frees it */

static void free_model(PyObject *capsule)
{
    gru_model_free((gru_model *)PyCapsule_GetPointer(capsule, "gru_blocks.model"));
}

static PyObject *pack_views(const Py_buffer *w_ih, const Py_buffer *w_hh, const Py_buffer *b_ih,
                            const Py_buffer *b_hh)
{
    ptrdiff_t hidden = w_hh->shape[1], inputs = w_ih->shape[1];
    gru_model *model;
    int status;
    if (w_ih->shape[0] != 3 * hidden || w_hh->shape[0] != 3 * hidden ||
        b_ih->shape[0] != 3 * hidden || b_hh->shape[0] != 3 * hidden) {
        PyErr_SetString(PyExc_ValueError, "expected (3H, I), (3H, H), (3H) and (3H)");
        return NULL;
    }
    status = gru_model_new_f32(inputs, hidden, NULL, &model);
    if (status != GRU_OK) return fail(status);
    status = gru_model_pack_f32(model, 0, w_ih->buf, w_hh->buf, b_ih->buf, b_hh->buf);
    if (status != GRU_OK) {
        gru_model_free(model);
        return fail(status);
    }
    return PyCapsule_New(model, "gru_blocks.model", free_model);
}

static PyObject *pack(PyObject *module, PyObject *args)
{
    static const int dims[4] = {2, 2, 1, 1};
    PyObject *arrays[4], *model = NULL;
    Py_buffer views[4];
    int i = 0;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOOO", &arrays[0], &arrays[1], &arrays[2], &arrays[3])) return NULL;
    while (i < 4 && get_floats(arrays[i], dims[i], 0, &views[i]) == 0) i++;
    if (i == 4) model = pack_views(&views[0], &views[1], &views[2], &views[3]);
    while (i > 0) PyBuffer_Release(&views[--i]);
    return model;
}

/* ---- forward */

/* Any number of Python threads may be in here with the same model. */
static PyObject *run(const gru_model *model, const Py_buffer *x, const Py_buffer *output)
{
    ptrdiff_t steps = x->shape[0], rows = x->shape[1], shape[5];
    size_t size;
    void *workspace;
    int status = gru_model_shape(model, shape);
    if (status != GRU_OK) return fail(status);
    if (x->shape[2] != shape[0] || output->shape[0] != steps || output->shape[1] != rows ||
        output->shape[2] != shape[1]) {
        PyErr_SetString(PyExc_ValueError, "expected x (T, N, I) and output (T, N, H)");
        return NULL;
    }
    status = gru_workspace_size_f32(model, GRU_INFERENCE, steps, rows, 1, NULL, &size);
    if (status != GRU_OK) return fail(status);
    workspace = PyMem_RawMalloc(size);
    if (workspace == NULL) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    status = gru_forward_f32(model, steps, rows, x->buf, NULL, output->buf, NULL, workspace, size,
                             1, NULL);
    Py_END_ALLOW_THREADS
    PyMem_RawFree(workspace);
    if (status != GRU_OK) return fail(status);
    Py_RETURN_NONE;
}

static PyObject *forward(PyObject *module, PyObject *args)
{
    PyObject *capsule, *x_object, *output_object, *result = NULL;
    Py_buffer x, output;
    const gru_model *model;
    (void)module;
    if (!PyArg_ParseTuple(args, "OOO", &capsule, &x_object, &output_object)) return NULL;
    model = (const gru_model *)PyCapsule_GetPointer(capsule, "gru_blocks.model");
    if (model == NULL || get_floats(x_object, 3, 0, &x) < 0) return NULL;
    if (get_floats(output_object, 3, PyBUF_WRITABLE, &output) == 0) {
        result = run(model, &x, &output);
        PyBuffer_Release(&output);
    }
    PyBuffer_Release(&x);
    return result;
}

/* ---- the module */

static PyMethodDef methods[] = {
    {"pack", pack, METH_VARARGS,
     "pack(weight_ih, weight_hh, bias_ih, bias_hh)\n--\n\nA model from its weights, which it copies."},
    {"forward", forward, METH_VARARGS,
     "forward(model, x, output)\n--\n\nWrite output (T, N, H) from x (T, N, I), without the GIL."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "gru_blocks", "A GRU of gru_c, from C.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_gru_blocks(void)
{
    if (gru_import() < 0) return NULL; /* before any other function of gru_c.h */
    return PyModule_Create(&definition);
}
