// What the kernels of this room share: pages as they lie in memory, a sequence of a call, vectors, the exponential.
//
// Letters: N tokens of the call, H heads, G key-value heads, K head size, P pages, F files of a sequence.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define CLONES
#endif

#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

constexpr int PAGE = 64;  // tokens of a page
enum Kept { FLOAT32, BFLOAT16, INT8 };

extern "C" {

// One sequence of the call: its queries are rows `first` to `last`, the last of them stands at `num_tokens - 1`.
struct Stretch {
    int64_t first, last, num_tokens, num_files;
    const int64_t* pages;      // in order
    const int64_t* files;      // (num_tokens): the file of each key
    const uint8_t* relations;  // (F, F)
    const float* terms;        // (H, F, F), or null
};

struct Call {
    int64_t heads, kv_heads, head_dim, kept;
    int64_t local, file;                // ranges; -1: none
    const float* q;                     // (N, H, K)
    void *keys, *values;                // (P, G, K, PAGE) and (P, G, PAGE, K)
    float *key_scales, *value_scales;   // (P, G, PAGE), for int8
    float* out;                         // (N, H, K)
};
}

typedef float Lanes __attribute__((vector_size(64)));

INLINE Lanes load(const float* from) { Lanes lanes; std::memcpy(&lanes, from, sizeof lanes); return lanes; }
INLINE void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }
INLINE Lanes fused(float one, Lanes other, Lanes sum) {
    for (int i = 0; i < 16; ++i) sum[i] = __builtin_fmaf(one, other[i], sum[i]);
    return sum;
}

// In an order of its own, whatever the instruction set: halves are added, then halves of that.
INLINE float total_of(Lanes lanes) {
    typedef float Eight __attribute__((vector_size(32)));
    typedef float Four __attribute__((vector_size(16)));
    Eight eight[2];
    Four four[2];
    std::memcpy(eight, &lanes, sizeof lanes);
    eight[0] += eight[1];
    std::memcpy(four, eight, sizeof four);
    four[0] += four[1];
    return (four[0][0] + four[0][2]) + (four[0][1] + four[0][3]);
}

INLINE float as_float(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
INLINE uint32_t as_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

// Rounds to the nearest power of two and takes six terms of the rest; below -87 it is zero. Within 2 units in the last
// place of the true value for x up to 0, and the same operations on every machine.
INLINE float exponential(float x) {
    const float power = x * 1.44269504f + 12582912.0f;  // the whole number is in the lowest bits
    const float whole = power - 12582912.0f;
    const float rest = __builtin_fmaf(whole, -1.42860677e-6f, __builtin_fmaf(whole, -0.693145752f, x));
    float sum = 1.38888889e-3f;
    sum = __builtin_fmaf(sum, rest, 8.33333333e-3f);
    sum = __builtin_fmaf(sum, rest, 4.16666667e-2f);
    sum = __builtin_fmaf(sum, rest, 1.66666667e-1f);
    sum = __builtin_fmaf(sum, rest, 0.5f);
    sum = __builtin_fmaf(sum, rest, 1.0f);
    sum = __builtin_fmaf(sum, rest, 1.0f);
    const float factor = as_float((as_bits(power) - 0x4b400000u + 127u) << 23);
    return x < -87.0f ? 0.0f : sum * factor;
}
