/* A reader of float32 tensors in .safetensors files, as gru_c's model.save writes them. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stddef.h>

typedef struct safetensors {
    unsigned char *bytes; /* the file */
    size_t size;
    size_t data; /* where the tensors begin */
} safetensors;

/* Read a file. Returns NULL, or what is wrong with it; then there is nothing to close. */
const char *safetensors_open(safetensors *file, const char *path);
void safetensors_close(safetensors *file);

/* The sizes of a float32 tensor of at most two axes; a vector has shape[1] = 1. Returns 0 if the file
 * has no such tensor. */
int safetensors_shape(const safetensors *file, const char *name, size_t shape[2]);

/* A copy of a float32 tensor of this shape, which the caller frees; or NULL. */
float *safetensors_read(const safetensors *file, const char *name, size_t rows, size_t columns);

#endif
