// A stand-in for a host: blocks of odd sizes give the samples that one block gives.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "amplifier.h"

int main()
{
    const int samples = 48000, sizes[] = {64, 1, 480, 63, 512, 7, 0, 511, 2};
    std::vector<float> in(samples), whole(samples), blocks(samples);
    for (int t = 0; t < samples; t++) in[t] = 0.5f * std::sin(0.02f * t) * std::sin(0.0005f * t);

    Amplifier amplifier;
    amplifier.prepare(48000.0, 512);
    amplifier.process(in.data(), whole.data(), samples);
    amplifier.reset();
    blocks = in;
    for (int done = 0, i = 0; done < samples; i++) {
        int size = std::min(sizes[i % 9], samples - done);
        amplifier.process(&blocks[done], &blocks[done], size);
        done += size;
    }
    bool same = std::memcmp(whole.data(), blocks.data(), samples * sizeof(float)) == 0;
    std::printf("%d samples, %s\n", samples, same ? "the same in blocks of any size" : "NOT THE SAME");
    return same ? 0 : 1;
}
