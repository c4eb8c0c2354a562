// A GRU of oneDNN in 8 or 16 bits behind the interface of onednn_driver.cpp: one layer, forward.
//
// int8 is gru, the reset gate before the product: oneDNN has no int8 lbr_gru. x is u8, weights are
// s8 with a scale for each output, h0 and output are f32. bfloat16 is gru or lbr_gru; all but the
// bias is bf16. Arrays cross as f32 in the layouts of onednn_driver.cpp, the bias of gru is (3, H). What
// converts them is not timed.

#include <memory>
#include <unordered_map>
#include <vector>

#include "onednn_driver.h"

using namespace dnnl;
using tag = memory::format_tag;
using type = memory::data_type;

namespace {

memory::desc described(const memory::dims &dims, type held, tag layout) {
    return memory::desc(dims, held, layout);
}

struct Gru {
    memory::dim T, N, I, H;
    bool int8, reset_after;
    int threads;
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    primitive_attr attributes; // the scales of int8
    memory x, h0, output;
    primitive forward;
    std::unordered_map<int, memory> args;

    type held() const { return int8 ? type::u8 : type::bf16; }
    type weights() const { return int8 ? type::s8 : type::bf16; }
    type state() const { return int8 ? type::f32 : type::bf16; }
    memory::dims x_dims() const { return {T, N, I}; }
    memory::dims h_dims() const { return {1, 1, N, H}; }
    memory::dims output_dims() const { return {T, N, H}; }
    memory::dims layer_dims() const { return {1, 1, I, 3, H}; }
    memory::dims iter_dims() const { return {1, 1, H, 3, H}; }
    memory::dims bias_dims() const { return {1, 1, reset_after ? 4 : 3, H}; }

    template <typename Forward>
    typename Forward::primitive_desc describe() {
        return {cpu, prop_kind::forward_inference, rnn_direction::unidirectional_left2right,
                described(x_dims(), held(), tag::tnc), described(h_dims(), state(), tag::ldnc),
                described(layer_dims(), weights(), tag::any),
                described(iter_dims(), weights(), tag::any),
                described(bias_dims(), type::f32, tag::ldgo),
                described(output_dims(), state(), tag::tnc), memory::desc(), attributes};
    }

    void convert(memory source, memory target, const primitive_attr &scales) {
        reorder(source, target, scales).execute(queue, source, target);
        queue.wait();
    }
    memory plain(const memory::dims &dims, tag layout, const float *data) {
        return memory(described(dims, type::f32, layout), cpu, const_cast<float *>(data));
    }
    memory packed(const memory::desc &wanted, memory source) {
        memory target(wanted, cpu);
        convert(source, target, attributes);
        return target;
    }

    template <typename Forward>
    void build(const float *w_layer, const float *w_iter, const float *bias) {
        const auto pd = describe<Forward>();
        x = memory(pd.src_layer_desc(), cpu);
        h0 = memory(pd.src_iter_desc(), cpu);
        output = memory(pd.dst_layer_desc(), cpu);
        memory b(pd.bias_desc(), cpu);
        std::memcpy(b.get_data_handle(), bias, pd.bias_desc().get_size());
        forward = Forward(pd);
        args = {{DNNL_ARG_SRC_LAYER, x}, {DNNL_ARG_SRC_ITER, h0}, {DNNL_ARG_BIAS, b},
                {DNNL_ARG_WEIGHTS_LAYER,
                        packed(pd.weights_layer_desc(), plain(layer_dims(), tag::ldigo, w_layer))},
                {DNNL_ARG_WEIGHTS_ITER,
                        packed(pd.weights_iter_desc(), plain(iter_dims(), tag::ldigo, w_iter))},
                {DNNL_ARG_DST_LAYER, output}};
    }

    void run() {
        forward.execute(queue, args);
        queue.wait();
    }
};

} // namespace

extern "C" {

// scales: null for bfloat16; for int8 scale and shift of x and h, then the scales of 3H outputs.
Gru *gru_create(int T, int N, int I, int H, int reset_after, int threads, const float *w_layer,
        const float *w_iter, const float *bias, const float *scales) {
    Gru *made = nullptr;
    guarded(threads, [&] {
        std::unique_ptr<Gru> gru(new Gru{T, N, I, H, scales != nullptr, reset_after != 0, threads});
        if (scales) {
            const int mask = 1 << 3 | 1 << 4; // by gate and output of ldigo
            gru->attributes.set_rnn_data_qparams(scales[0], scales[1]);
            gru->attributes.set_rnn_weights_qparams(
                    mask, std::vector<float>(scales + 2, scales + 2 + 3 * H));
        }
        if (reset_after)
            gru->build<lbr_gru_forward>(w_layer, w_iter, bias);
        else
            gru->build<gru_forward>(w_layer, w_iter, bias);
        made = gru.release();
    });
    return made;
}

void gru_destroy(Gru *gru) { delete gru; }

int gru_set_input(Gru *gru, const float *x, const float *h0, const float *) {
    return guarded(gru->threads, [=] {
        gru->convert(gru->plain(gru->x_dims(), tag::tnc, x), gru->x, gru->attributes);
        gru->convert(gru->plain(gru->h_dims(), tag::ldnc, h0), gru->h0, {});
    });
}

int gru_time(Gru *gru, int repeats, int number, double *seconds) {
    return guarded(gru->threads,
            [=] { *seconds = best_time(repeats, number, [=] { gru->run(); }); });
}

int gru_output(Gru *gru, float *output) {
    return guarded(gru->threads, [=] {
        gru->convert(gru->output, gru->plain(gru->output_dims(), tag::tnc, output), {});
    });
}

} // extern "C"
