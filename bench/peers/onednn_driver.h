// What both drivers of oneDNN have: the loop that is timed, errors, the version.
#pragma once

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <string>

#include "oneapi/dnnl/dnnl.hpp"

namespace {

thread_local std::string last_error;

// Least seconds a call over `repeats` batches of `number` calls.
template <typename Call>
double best_time(int repeats, int number, Call call) {
    double best = 1e300;
    for (int i = 0; i < repeats; i++) {
        const auto start = std::chrono::steady_clock::now();
        for (int j = 0; j < number; j++) call();
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        best = std::min(best, taken.count());
    }
    return best / number;
}

// No exception crosses the C border: 0, or -1 with the message kept for gru_error().
template <typename Call>
int guarded(int threads, Call call) {
    try {
        omp_set_num_threads(threads); // it belongs to the calling thread
        call();
        return 0;
    } catch (const std::exception &error) {
        last_error = error.what();
        return -1;
    }
}

} // namespace

extern "C" {

const char *gru_error() { return last_error.c_str(); }

// 1 if the library that is bound at run time is the one of the headers.
int gru_version_matches(char *text, int size) {
    const auto *v = dnnl_version();
    const auto found = std::to_string(v->major) + "." + std::to_string(v->minor) + "."
            + std::to_string(v->patch);
    std::strncpy(text, found.c_str(), size - 1);
    text[size - 1] = 0;
    return v->major == DNNL_VERSION_MAJOR && v->minor == DNNL_VERSION_MINOR;
}

} // extern "C"
