// The process block of an audio plug-in: a GRU over the samples of one channel, and a dense layer.
//
// A host calls prepare before it starts, then process on its audio thread, which may not wait: process
// and reset allocate nothing, take no lock and make no system call.
#ifndef AMPLIFIER_H
#define AMPLIFIER_H

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "gru_c.h"
#include "weights.h"

class Amplifier {
public:
    Amplifier()
    {
        gru_options options = {};
        options.struct_size = sizeof options;
        options.num_layers = kLayers;
        check(gru_model_new_f32(kInputs, kHidden, &options, &model_));
        for (int layer = 0; layer < kLayers; layer++)
            check(gru_model_pack_f32(model_, layer, weight_ih[layer], weight_hh[layer], bias_ih[layer],
                                     bias_hh[layer]));
    }

    ~Amplifier()
    {
        gru_stream_free(stream_);
        gru_model_free(model_);
    }

    Amplifier(const Amplifier &) = delete;
    Amplifier &operator=(const Amplifier &) = delete;

    // The weights hold for the sample rate that they were trained at; resample for others.
    void prepare(double sample_rate, int max_block)
    {
        if (sample_rate <= 0 || max_block <= 0) throw std::invalid_argument("prepare");
        gru_stream_free(stream_);
        stream_ = nullptr;
        check(gru_stream_new_f32(model_, 1, max_block, 1, nullptr, &stream_));
        hidden_.assign(static_cast<std::size_t>(max_block) * kHidden, 0.0f);
        max_block_ = max_block;
    }

    // `out` may be `in`.
    void process(const float *in, float *out, int samples) noexcept
    {
        for (int done = 0; done < samples; done += max_block_)
            process_block(in + done, out + done, std::min(max_block_, samples - done));
    }

    // Back to silence.
    void reset() noexcept { gru_stream_reset_f32(stream_, nullptr); }

private:
    static void check(int status)
    {
        if (status != GRU_OK) throw std::runtime_error(gru_status_text(status));
    }

    void process_block(const float *in, float *out, int samples) noexcept
    {
        gru_stream_run_f32(stream_, samples, in, hidden_.data());
        for (int t = 0; t < samples; t++) {
            float sum = dense_bias[0];
            for (int i = 0; i < kHidden; i++) sum += dense_weight[i] * hidden_[t * kHidden + i];
            out[t] = in[t] + sum;
        }
    }

    gru_model *model_ = nullptr;
    gru_stream *stream_ = nullptr;
    std::vector<float> hidden_;
    int max_block_ = 1;
};

#endif
