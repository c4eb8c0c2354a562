// One GRU layer of oneDNN (lbr_gru, float32) behind a plain C interface for onednn_peer.py.
//
// Plain layouts at the border, row-major, oneDNN's gate order u (update), r (reset), n (new):
//   x (T, N, I)   h0 (N, H)   output, d_output (T, N, H)
//   w_layer (I, 3, H)   w_iter (H, 3, H)   bias (4, H): u, r, n of the input, n of the state
// Weights and their gradients cross by a reorder: with format_tag::any the library chooses how to
// pack them, and what is written into packed memory directly gives wrong results.

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <string>
#include <unordered_map>

#include "oneapi/dnnl/dnnl.hpp"

using namespace dnnl;
using tag = memory::format_tag;
using Args = std::unordered_map<int, memory>;

namespace {

thread_local std::string last_error;

struct Gru {
    memory::dim T, N, I, H;
    bool training;
    int threads;
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    memory x, h0, output, w_layer, w_iter, bias;              // of the forward
    memory workspace, w_layer_back, w_iter_back;              // training only, from here
    memory d_output, dx, dh0, dw_layer, dw_iter, dbias;
    primitive forward, backward;
    Args forward_args, backward_args;

    memory::desc plain(const memory::dims &dims, tag layout) const {
        return memory::desc(dims, memory::data_type::f32, layout);
    }
    memory::desc layer_weights(tag layout) const { return plain({1, 1, I, 3, H}, layout); }
    memory::desc iter_weights(tag layout) const { return plain({1, 1, H, 3, H}, layout); }

    // A memory in the layout `wanted`, filled from contiguous data.
    memory packed(const memory::desc &wanted, const memory::desc &from, const float *data) {
        memory source(from, cpu, const_cast<float *>(data)), target(wanted, cpu);
        reorder(source, target).execute(queue, source, target);
        queue.wait();
        return target;
    }
    void unpack(memory &source, const memory::desc &to, float *data) {
        memory target(to, cpu, data);
        reorder(source, target).execute(queue, source, target);
        queue.wait();
    }
    static void fill(memory &target, const float *data) {
        std::memcpy(target.get_data_handle(), data, target.get_desc().get_size());
    }

    lbr_gru_forward::primitive_desc describe_forward() {
        return {cpu, training ? prop_kind::forward_training : prop_kind::forward_inference,
                rnn_direction::unidirectional_left2right, plain({T, N, I}, tag::tnc),
                plain({1, 1, N, H}, tag::ldnc), layer_weights(tag::any), iter_weights(tag::any),
                plain({1, 1, 4, H}, tag::ldgo), plain({T, N, H}, tag::tnc), memory::desc()};
    }

    // Through the C interface, which alone has the flag for lbr_gru: without it oneDNN adds to the
    // gradients of weights and biases, and they would have to be zeroed in every call.
    lbr_gru_backward::primitive_desc describe_backward(
            const lbr_gru_forward::primitive_desc &forward_pd) {
        const auto seq_x = plain({T, N, I}, tag::tnc), seq_h = plain({T, N, H}, tag::tnc);
        const auto state = plain({1, 1, N, H}, tag::ldnc), b = plain({1, 1, 4, H}, tag::ldgo);
        const auto layer = layer_weights(tag::any), iter = iter_weights(tag::any);
        dnnl_primitive_desc_t made = nullptr;
        error::wrap_c_api(dnnl_lbr_gru_backward_primitive_desc_create(&made, cpu.get(),
                                  dnnl_backward, dnnl_unidirectional_left2right, seq_x.get(),
                                  state.get(), layer.get(), iter.get(), b.get(), seq_h.get(),
                                  nullptr, seq_x.get(), state.get(), layer.get(), iter.get(),
                                  b.get(), seq_h.get(), nullptr,
                                  dnnl_rnn_flags_diff_weights_overwrite, forward_pd.get(),
                                  nullptr),
                "no lbr_gru backward");
        return lbr_gru_backward::primitive_desc(made);
    }

    Gru(memory::dim T, memory::dim N, memory::dim I, memory::dim H, bool training, int threads,
            const float *layer, const float *iter, const float *biases)
        : T(T), N(N), I(I), H(H), training(training), threads(threads) {
        omp_set_num_threads(threads); // a primitive keeps the number that it was made with
        const auto pd = describe_forward();
        x = memory(pd.src_layer_desc(), cpu);
        h0 = memory(pd.src_iter_desc(), cpu);
        output = memory(pd.dst_layer_desc(), cpu);
        w_layer = packed(pd.weights_layer_desc(), layer_weights(tag::ldigo), layer);
        w_iter = packed(pd.weights_iter_desc(), iter_weights(tag::ldigo), iter);
        bias = memory(pd.bias_desc(), cpu);
        fill(bias, biases);
        forward = lbr_gru_forward(pd);
        forward_args = {{DNNL_ARG_SRC_LAYER, x}, {DNNL_ARG_SRC_ITER, h0},
                {DNNL_ARG_WEIGHTS_LAYER, w_layer}, {DNNL_ARG_WEIGHTS_ITER, w_iter},
                {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST_LAYER, output}};
        if (training) prepare_backward(pd, layer, iter);
    }

    void prepare_backward(const lbr_gru_forward::primitive_desc &forward_pd, const float *layer,
            const float *iter) {
        const auto pd = describe_backward(forward_pd);
        workspace = memory(forward_pd.workspace_desc(), cpu);
        forward_args.insert({DNNL_ARG_WORKSPACE, workspace});
        w_layer_back = packed(pd.weights_layer_desc(), layer_weights(tag::ldigo), layer);
        w_iter_back = packed(pd.weights_iter_desc(), iter_weights(tag::ldigo), iter);
        d_output = memory(pd.diff_dst_layer_desc(), cpu);
        dx = memory(pd.diff_src_layer_desc(), cpu);
        dh0 = memory(pd.diff_src_iter_desc(), cpu);
        dw_layer = memory(pd.diff_weights_layer_desc(), cpu);
        dw_iter = memory(pd.diff_weights_iter_desc(), cpu);
        dbias = memory(pd.diff_bias_desc(), cpu);
        backward = lbr_gru_backward(pd);
        backward_args = {{DNNL_ARG_SRC_LAYER, x}, {DNNL_ARG_SRC_ITER, h0},
                {DNNL_ARG_WEIGHTS_LAYER, w_layer_back}, {DNNL_ARG_WEIGHTS_ITER, w_iter_back},
                {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST_LAYER, output},
                {DNNL_ARG_WORKSPACE, workspace}, {DNNL_ARG_DIFF_DST_LAYER, d_output},
                {DNNL_ARG_DIFF_SRC_LAYER, dx}, {DNNL_ARG_DIFF_SRC_ITER, dh0},
                {DNNL_ARG_DIFF_WEIGHTS_LAYER, dw_layer}, {DNNL_ARG_DIFF_WEIGHTS_ITER, dw_iter},
                {DNNL_ARG_DIFF_BIAS, dbias}};
    }

    void run() {
        forward.execute(queue, forward_args);
        if (training) backward.execute(queue, backward_args);
        queue.wait();
    }
};

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
int guarded(Gru *gru, Call call) {
    try {
        if (gru) omp_set_num_threads(gru->threads); // it belongs to the calling thread
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

Gru *gru_create(int T, int N, int I, int H, int training, int threads, const float *w_layer,
        const float *w_iter, const float *bias) {
    Gru *made = nullptr;
    guarded(nullptr,
            [&] { made = new Gru(T, N, I, H, training != 0, threads, w_layer, w_iter, bias); });
    return made;
}

void gru_destroy(Gru *gru) { delete gru; }

void gru_set_input(Gru *gru, const float *x, const float *h0, const float *d_output) {
    Gru::fill(gru->x, x);
    Gru::fill(gru->h0, h0);
    if (gru->training) Gru::fill(gru->d_output, d_output);
}

int gru_time(Gru *gru, int repeats, int number, double *seconds) {
    return guarded(gru, [=] { *seconds = best_time(repeats, number, [=] { gru->run(); }); });
}

void gru_output(Gru *gru, float *output) {
    std::memcpy(output, gru->output.get_data_handle(), gru->output.get_desc().get_size());
}

int gru_gradients(Gru *gru, float *dx, float *dh0, float *dw_layer, float *dw_iter, float *dbias) {
    return guarded(gru, [=] {
        std::memcpy(dx, gru->dx.get_data_handle(), gru->dx.get_desc().get_size());
        std::memcpy(dh0, gru->dh0.get_data_handle(), gru->dh0.get_desc().get_size());
        std::memcpy(dbias, gru->dbias.get_data_handle(), gru->dbias.get_desc().get_size());
        gru->unpack(gru->dw_layer, gru->layer_weights(tag::ldigo), dw_layer);
        gru->unpack(gru->dw_iter, gru->iter_weights(tag::ldigo), dw_iter);
    });
}

} // extern "C"
