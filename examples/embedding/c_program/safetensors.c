/* A file is the size of its header (8 bytes, little-endian), the header in JSON, and the tensors. The
 * header has for each {"dtype": "F32", "shape": [...], "data_offsets": [begin, end]}. Nothing in a file
 * is trusted: each byte that is read lies within the file, and each size is checked before it is used.
 */
#include "safetensors.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct span {
    const char *at, *end;
} span;

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

/* What follows the string at `at`, or NULL. */
static const char *skip_string(const char *at, const char *end)
{
    if (at == end || *at != '"') return NULL;
    for (at++; at < end; at++) {
        if (*at == '"') return at + 1;
        if (*at == '\\' && ++at == end) return NULL;
    }
    return NULL;
}

/* What follows the value at `at`, which may hold others: up to a comma or a bracket that is not its own. */
static const char *skip_value(const char *at, const char *end)
{
    int depth = 0;
    while (at != NULL && at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
            continue;
        }
        if (*at == '{' || *at == '[') depth++;
        if ((*at == ',' || *at == '}' || *at == ']') && depth == 0) return at;
        if (*at == '}' || *at == ']') depth--;
        at++;
    }
    return NULL;
}

/* Whether a JSON object has this key, and its value. */
static int find(span object, const char *key, span *value)
{
    const char *at = skip_space(object.at, object.end);
    size_t length = strlen(key);
    if (at == object.end || *at != '{') return 0;
    do {
        const char *name = skip_space(at + 1, object.end);
        at = skip_string(name, object.end);
        if (at == NULL) return 0;
        int found = (size_t)(at - name) == length + 2 && memcmp(name + 1, key, length) == 0;
        at = skip_space(at, object.end);
        if (at == object.end || *at != ':') return 0;
        value->at = skip_space(at + 1, object.end);
        value->end = at = skip_value(value->at, object.end);
        if (at == NULL) return 0;
        if (found) return 1;
    } while (*at == ',');
    return 0;
}

/* The numbers of a JSON array, at most two. Returns how many, or -1. */
static int read_numbers(span array, size_t numbers[2])
{
    const char *at = array.at;
    int count = 0;
    if (at == array.end || *at != '[') return -1;
    at = skip_space(at + 1, array.end);
    for (; count < 2 && at < array.end && *at >= '0' && *at <= '9'; count++) {
        numbers[count] = 0;
        for (; at < array.end && *at >= '0' && *at <= '9'; at++) {
            if (numbers[count] > (SIZE_MAX - 9) / 10) return -1;
            numbers[count] = 10 * numbers[count] + (size_t)(*at - '0');
        }
        at = skip_space(at, array.end);
        if (at < array.end && *at == ',') at = skip_space(at + 1, array.end);
    }
    return at < array.end && *at == ']' ? count : -1;
}

/* The description of a float32 tensor. */
static int find_tensor(const safetensors *file, const char *name, span *tensor)
{
    span header = {(const char *)file->bytes + 8, (const char *)file->bytes + file->data};
    span dtype;
    return find(header, name, tensor) && find(*tensor, "dtype", &dtype) && dtype.end - dtype.at >= 5 &&
           memcmp(dtype.at, "\"F32\"", 5) == 0;
}

int safetensors_shape(const safetensors *file, const char *name, size_t shape[2])
{
    span tensor, numbers;
    shape[0] = shape[1] = 1;
    return find_tensor(file, name, &tensor) && find(tensor, "shape", &numbers) &&
           read_numbers(numbers, shape) > 0;
}

float *safetensors_read(const safetensors *file, const char *name, size_t rows, size_t columns)
{
    span tensor, numbers;
    size_t shape[2], offsets[2], room = file->size - file->data;
    if (!safetensors_shape(file, name, shape) || shape[0] != rows || shape[1] != columns) return NULL;
    if (columns == 0 || rows > room / sizeof(float) / columns) return NULL;
    size_t size = rows * columns * sizeof(float);
    if (!find_tensor(file, name, &tensor) || !find(tensor, "data_offsets", &numbers) ||
        read_numbers(numbers, offsets) != 2)
        return NULL;
    if (offsets[0] > room - size || offsets[1] != offsets[0] + size) return NULL;
    float *values = malloc(size);
    if (values != NULL) memcpy(values, file->bytes + file->data + offsets[0], size);
    return values;
}

static const char *read_file(safetensors *file, FILE *stream)
{
    if (fseek(stream, 0, SEEK_END) != 0) return "it cannot be read";
    long size = ftell(stream);
    if (size < 8 || fseek(stream, 0, SEEK_SET) != 0) return "it is no .safetensors file";
    file->size = (size_t)size;
    file->bytes = malloc(file->size);
    if (file->bytes == NULL) return "there is no memory for it";
    if (fread(file->bytes, 1, file->size, stream) != file->size) return "it cannot be read";
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | file->bytes[i];
    if (header > file->size - 8) return "it is no .safetensors file, or was cut off";
    file->data = 8 + (size_t)header;
    return NULL;
}

const char *safetensors_open(safetensors *file, const char *path)
{
    FILE *stream = fopen(path, "rb");
    memset(file, 0, sizeof *file);
    if (stream == NULL) return "it cannot be opened";
    const char *problem = read_file(file, stream);
    fclose(stream);
    if (problem != NULL) safetensors_close(file);
    return problem;
}

void safetensors_close(safetensors *file)
{
    free(file->bytes);
    file->bytes = NULL;
}
