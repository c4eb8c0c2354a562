// A GRU of oneDNN (lbr_gru, float32) behind a plain C interface for onednn_peer.py: a primitive a
// layer, since one of several layers takes only I = D * H.
//
// Plain layouts at the border, row-major, with D directions, L layers, oneDNN's gate order u
// (update), r (reset), n (new). The arrays of all layers lie one behind the other; I is D * H above
// the first:
//   x (T, N, I)   h0 (L, D, N, H)   output, d_output (T, N, D * H)
//   w_layer (D, I, 3, H)   w_iter (D, H, 3, H)
//   bias (D, 4, H): u, r, n of the input, n of the state
// Weights and their gradients cross by a reorder: with format_tag::any the library chooses how to
// pack them, and what is written into packed memory directly gives wrong results.

#include <cstring>
#include <unordered_map>
#include <vector>

#include "onednn_driver.h"

using namespace dnnl;
using tag = memory::format_tag;
using Args = std::unordered_map<int, memory>;

namespace {

struct Sizes {
    memory::dim T, N, I, H, D;
    bool training;

    rnn_direction direction() const {
        return D == 2 ? rnn_direction::bidirectional_concat
                      : rnn_direction::unidirectional_left2right;
    }
    memory::dim layer_weights() const { return D * I * 3 * H; }
    memory::dim iter_weights() const { return D * H * 3 * H; }
    memory::dim bias() const { return D * 4 * H; }
    memory::dim state() const { return D * N * H; }
};

void copy(memory &target, const float *data) {
    std::memcpy(target.get_data_handle(), data, target.get_desc().get_size());
}
float *copy(float *target, const memory &source) { // the place behind what was written
    const size_t size = source.get_desc().get_size();
    std::memcpy(target, source.get_data_handle(), size);
    return target + size / sizeof(float);
}

struct Layer {
    Sizes sizes;
    engine &cpu;
    stream &queue;
    memory x, h0, output, w_layer, w_iter, bias;              // of the forward
    memory workspace, w_layer_back, w_iter_back;              // training only, from here
    memory d_output, dx, dh0, dw_layer, dw_iter, dbias;
    primitive forward, backward;
    Args forward_args, backward_args;

    static memory::desc plain(const memory::dims &dims, tag layout) {
        return memory::desc(dims, memory::data_type::f32, layout);
    }
    memory::desc inputs() const { return plain({sizes.T, sizes.N, sizes.I}, tag::tnc); }
    memory::desc outputs() const { return plain({sizes.T, sizes.N, sizes.D * sizes.H}, tag::tnc); }
    memory::desc state() const { return plain({1, sizes.D, sizes.N, sizes.H}, tag::ldnc); }
    memory::desc biases() const { return plain({1, sizes.D, 4, sizes.H}, tag::ldgo); }
    memory::desc layer_weights(tag layout) const {
        return plain({1, sizes.D, sizes.I, 3, sizes.H}, layout);
    }
    memory::desc iter_weights(tag layout) const {
        return plain({1, sizes.D, sizes.H, 3, sizes.H}, layout);
    }

    // A memory in the layout `wanted`, filled from contiguous data.
    memory packed(const memory::desc &wanted, const memory::desc &from, const float *data) {
        memory source(from, cpu, const_cast<float *>(data)), target(wanted, cpu);
        reorder(source, target).execute(queue, source, target);
        queue.wait();
        return target;
    }
    float *unpack(memory &source, const memory::desc &to, float *data) {
        memory target(to, cpu, data);
        reorder(source, target).execute(queue, source, target);
        queue.wait();
        return data + to.get_size() / sizeof(float);
    }

    lbr_gru_forward::primitive_desc describe_forward() {
        return {cpu,
                sizes.training ? prop_kind::forward_training : prop_kind::forward_inference,
                sizes.direction(), inputs(), state(), layer_weights(tag::any),
                iter_weights(tag::any), biases(), outputs(), memory::desc()};
    }

    // Through the C interface, which alone has the flag for lbr_gru: without it oneDNN adds to the
    // gradients of weights and biases, and they would have to be zeroed in every call.
    lbr_gru_backward::primitive_desc describe_backward(
            const lbr_gru_forward::primitive_desc &forward_pd) {
        const auto seq_x = inputs(), seq_h = outputs(), h = state(), b = biases();
        const auto layer = layer_weights(tag::any), iter = iter_weights(tag::any);
        dnnl_primitive_desc_t made = nullptr;
        error::wrap_c_api(dnnl_lbr_gru_backward_primitive_desc_create(&made, cpu.get(),
                                  dnnl_backward, convert_to_c(sizes.direction()), seq_x.get(),
                                  h.get(), layer.get(), iter.get(), b.get(), seq_h.get(),
                                  nullptr, seq_x.get(), h.get(), layer.get(), iter.get(),
                                  b.get(), seq_h.get(), nullptr,
                                  dnnl_rnn_flags_diff_weights_overwrite, forward_pd.get(),
                                  nullptr),
                "no lbr_gru backward");
        return lbr_gru_backward::primitive_desc(made);
    }

    Layer(const Sizes &sizes, engine &cpu, stream &queue, const float *layer, const float *iter,
            const float *biases_of_all, const Layer *below)
        : sizes(sizes), cpu(cpu), queue(queue) {
        const auto pd = describe_forward();
        x = below ? below->output : memory(pd.src_layer_desc(), cpu);
        h0 = memory(pd.src_iter_desc(), cpu);
        output = memory(pd.dst_layer_desc(), cpu);
        w_layer = packed(pd.weights_layer_desc(), layer_weights(tag::ldigo), layer);
        w_iter = packed(pd.weights_iter_desc(), iter_weights(tag::ldigo), iter);
        bias = memory(pd.bias_desc(), cpu);
        copy(bias, biases_of_all);
        forward = lbr_gru_forward(pd);
        forward_args = {{DNNL_ARG_SRC_LAYER, x}, {DNNL_ARG_SRC_ITER, h0},
                {DNNL_ARG_WEIGHTS_LAYER, w_layer}, {DNNL_ARG_WEIGHTS_ITER, w_iter},
                {DNNL_ARG_BIAS, bias}, {DNNL_ARG_DST_LAYER, output}};
        if (sizes.training) prepare_backward(pd, layer, iter, below);
    }

    void prepare_backward(const lbr_gru_forward::primitive_desc &forward_pd, const float *layer,
            const float *iter, const Layer *below) {
        const auto pd = describe_backward(forward_pd);
        workspace = memory(forward_pd.workspace_desc(), cpu);
        forward_args.insert({DNNL_ARG_WORKSPACE, workspace});
        w_layer_back = packed(pd.weights_layer_desc(), layer_weights(tag::ldigo), layer);
        w_iter_back = packed(pd.weights_iter_desc(), iter_weights(tag::ldigo), iter);
        d_output = memory(pd.diff_dst_layer_desc(), cpu);
        dx = below ? below->d_output : memory(pd.diff_src_layer_desc(), cpu);
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
};

struct Gru {
    bool training;
    int threads;
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    std::vector<Layer> layers;

    Gru(Sizes sizes, int count, int threads, const float *w_layer, const float *w_iter,
            const float *bias)
        : training(sizes.training), threads(threads) {
        layers.reserve(count);
        for (int i = 0; i < count; i++) {
            const Layer *below = i ? &layers.back() : nullptr;
            layers.emplace_back(sizes, cpu, queue, w_layer, w_iter, bias, below);
            w_layer += sizes.layer_weights();
            w_iter += sizes.iter_weights();
            bias += sizes.bias();
            sizes.I = sizes.D * sizes.H;
        }
    }

    void run() {
        for (auto &layer : layers) layer.forward.execute(queue, layer.forward_args);
        if (training)
            for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer)
                layer->backward.execute(queue, layer->backward_args);
        queue.wait();
    }
};

// One step after the other, of a Gru of one layer with T = 1. What a step puts out is the state of the
// next one: two buffers change places, and x alone is copied. The arguments are made once, which
// primitive::execute would do in each call.
struct Steps {
    Layer &layer;
    dnnl_stream_t queue;
    memory other_h, other_output; // the buffers of layer.output and layer.h0 in each other's place
    std::vector<dnnl_exec_arg_t> args[2];

    explicit Steps(Gru &gru)
        : layer(gru.layers.front())
        , queue(gru.queue.get())
        , other_h(layer.state(), layer.cpu, layer.output.get_data_handle())
        , other_output(layer.outputs(), layer.cpu, layer.h0.get_data_handle()) {
        Args forth = layer.forward_args, back = layer.forward_args;
        back[DNNL_ARG_SRC_ITER] = other_h;
        back[DNNL_ARG_DST_LAYER] = other_output;
        for (const auto &arg : forth) args[0].push_back({arg.first, arg.second.get()});
        for (const auto &arg : back) args[1].push_back({arg.first, arg.second.get()});
    }

    // From a state of zeros; `output` (steps, N, H) or null.
    void run(int steps, const float *x, float *output) {
        const dnnl_primitive_t primitive = layer.forward.get();
        void *const x_t = layer.x.get_data_handle();
        const size_t x_bytes = layer.x.get_desc().get_size();
        std::memset(layer.h0.get_data_handle(), 0, layer.h0.get_desc().get_size());
        for (int t = 0; t < steps; t++) {
            std::memcpy(x_t, x + t * (x_bytes / sizeof(float)), x_bytes);
            const auto &now = args[t % 2];
            error::wrap_c_api(
                    dnnl_primitive_execute(primitive, queue, (int)now.size(), now.data()), "step");
            error::wrap_c_api(dnnl_stream_wait(queue), "step");
            if (output) output = copy(output, t % 2 ? other_output : layer.output);
        }
    }
};

} // namespace

extern "C" {

Gru *gru_create(int T, int N, int I, int H, int directions, int layers, int training, int threads,
        const float *w_layer, const float *w_iter, const float *bias) {
    Gru *made = nullptr;
    const Sizes sizes = {T, N, I, H, directions, training != 0};
    // A primitive keeps the number of threads that it was made with.
    guarded(threads, [&] { made = new Gru(sizes, layers, threads, w_layer, w_iter, bias); });
    return made;
}

void gru_destroy(Gru *gru) { delete gru; }

int gru_set_input(Gru *gru, const float *x, const float *h0, const float *d_output) {
    return guarded(gru->threads, [=]() mutable {
        copy(gru->layers.front().x, x);
        for (auto &layer : gru->layers) {
            copy(layer.h0, h0);
            h0 += layer.sizes.state();
        }
        if (gru->training) copy(gru->layers.back().d_output, d_output);
    });
}

int gru_time(Gru *gru, int repeats, int number, double *seconds) {
    return guarded(gru->threads,
            [=] { *seconds = best_time(repeats, number, [=] { gru->run(); }); });
}

// `passes` times `steps` steps of x (steps, N, I), each pass from a state of zeros; `output`
// (steps, N, H) or null.
int gru_steps(Gru *gru, int passes, int steps, const float *x, float *output) {
    return guarded(gru->threads, [=] {
        Steps stream(*gru);
        for (int pass = 0; pass < passes; pass++) stream.run(steps, x, output);
    });
}

int gru_output(Gru *gru, float *output) {
    return guarded(gru->threads, [=] { copy(output, gru->layers.back().output); });
}

int gru_gradients(Gru *gru, float *dx, float *dh0, float *dw_layer, float *dw_iter, float *dbias) {
    return guarded(gru->threads, [=]() mutable {
        copy(dx, gru->layers.front().dx);
        for (auto &layer : gru->layers) {
            dh0 = copy(dh0, layer.dh0);
            dbias = copy(dbias, layer.dbias);
            dw_layer = layer.unpack(layer.dw_layer, layer.layer_weights(tag::ldigo), dw_layer);
            dw_iter = layer.unpack(layer.dw_iter, layer.iter_weights(tag::ldigo), dw_iter);
        }
    });
}

} // extern "C"
