/* One step of a GRU in C: the core without Python. test_c_program.py links and runs it.
 *
 * weight_ih, weight_hh, bias_ih, bias_hh, x and h come from the standard input, the new hidden state
 * goes to the standard output, all float32 in C order.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { I = 5, H = 17, N = 3, ARRAYS = 7 };

const void *gru_baseline_contexts(void);
size_t gru_c_step(const void *contexts, ptrdiff_t input_size, ptrdiff_t hidden_size, ptrdiff_t rows,
                  const void *const *arrays, void *memory);

int main(void) {
    static const size_t sizes[ARRAYS] = {3 * H * I, 3 * H * H, 3 * H, 3 * H, N * I, N * H, N * H};
    static float numbers[ARRAYS][3 * H * H];
    const void *arrays[ARRAYS];
    for (int i = 0; i < ARRAYS; i++) {
        arrays[i] = numbers[i];
        if (i < ARRAYS - 1 && fread(numbers[i], sizeof(float), sizes[i], stdin) != sizes[i])
            return 1;
    }
    const void *contexts = gru_baseline_contexts();
    size_t size = gru_c_step(contexts, I, H, N, arrays, NULL);
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (memory == NULL) return 1;
    gru_c_step(contexts, I, H, N, arrays, memory);
    free(memory);
    fwrite(numbers[ARRAYS - 1], sizeof(float), sizes[ARRAYS - 1], stdout);
    return 0;
}
