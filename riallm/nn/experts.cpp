// The experts of a mixture: out = sum over a token's experts of weight * (silu(x gate + b) * (x up + b)) down + b.
// A plain C interface, no headers of others.
//
// A row of weights is read once for all tokens that chose its expert. Lanes go along the row, and each product is summed
// in the same order whatever else is in the call: so a token gets the same bits in any company, and on every instruction
// set.
//
// Letters: N tokens, k experts a token, E experts, D hidden, I inner; D and I are multiples of 16.
#include <algorithm>
#include <vector>

#include "pages.h"

extern "C" {

struct Experts {
    int64_t num, each, experts, hidden, inner;
    const float* x;                                     // (N, D)
    const int64_t* chosen;                              // (N, k)
    const float* weights;                               // (N, k)
    const float *gate, *up, *down;                      // (E, I, D), (E, I, D), (E, D, I)
    const float *gate_bias, *up_bias, *down_bias;       // (E, I), (E, I), (E, D)
    float* out;                                         // (N, D)
};
}

namespace {

constexpr int64_t BLOCK = 32;  // rows of weights that a thread takes at a time
constexpr int R = 4;           // rows of weights that share a token that is loaded

INLINE Lanes fused(Lanes one, Lanes other, Lanes sum) {
    for (int i = 0; i < 16; ++i) sum[i] = __builtin_fmaf(one[i], other[i], sum[i]);
    return sum;
}

INLINE float silu(float x) {
    const float power = exponential(x < 0.0f ? x : -x);
    return x * (x < 0.0f ? power : 1.0f) / (1.0f + power);
}

// R rows of weights times T tokens.
template <int T>
INLINE void products_of(const float* rows, int64_t size, const float* const* x, float (*found)[4]) {
    Lanes sums[R][T] = {};
    for (int64_t i = 0; i < size; i += 16) {
        Lanes row[R];
        UNROLL for (int r = 0; r < R; ++r) row[r] = load(rows + r * size + i);
        UNROLL for (int r = 0; r < R; ++r) __builtin_prefetch(rows + (R + r) * size + i);  // the next rows, into the cache
        UNROLL for (int t = 0; t < T; ++t) {
            const Lanes own = load(x[t] + i);
            UNROLL for (int r = 0; r < R; ++r) sums[r][t] = fused(row[r], own, sums[r][t]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) found[r][t] = total_of(sums[r][t]);
}

INLINE void products(const float* rows, int64_t size, const float* const* x, int num, float (*found)[4]) {
    if (num == 4) return products_of<4>(rows, size, x, found);
    if (num == 3) return products_of<3>(rows, size, x, found);
    if (num == 2) return products_of<2>(rows, size, x, found);
    products_of<1>(rows, size, x, found);
}

// Rows `first` to `last` of an expert's gate and up. places: of its tokens, each token * k + which of its experts.
CLONES void widen(const Experts& call, int64_t expert, const int64_t* places, int64_t num, int64_t first, int64_t last,
                  float* inner) {
    for (int64_t row = first; row < last; row += R) {
        const int64_t at = expert * call.inner + row;
        for (int64_t m = 0; m < num; m += 4) {
            const int some = static_cast<int>(std::min<int64_t>(4, num - m));
            const float* x[4];
            float gate[R][4], up[R][4];
            for (int t = 0; t < some; ++t) x[t] = call.x + places[m + t] / call.each * call.hidden;
            products(call.gate + at * call.hidden, call.hidden, x, some, gate);
            products(call.up + at * call.hidden, call.hidden, x, some, up);
            for (int t = 0; t < some; ++t)
                for (int r = 0; r < R; ++r)
                    inner[places[m + t] * call.inner + row + r] =
                        silu(gate[r][t] + call.gate_bias[at + r]) * (up[r][t] + call.up_bias[at + r]);
        }
    }
}

// The same rows of its down.
CLONES void narrow(const Experts& call, int64_t expert, const int64_t* places, int64_t num, int64_t first, int64_t last,
                   const float* inner, float* made) {
    for (int64_t row = first; row < last; row += R) {
        const int64_t at = expert * call.hidden + row;
        for (int64_t m = 0; m < num; m += 4) {
            const int some = static_cast<int>(std::min<int64_t>(4, num - m));
            const float* x[4];
            float found[R][4];
            for (int t = 0; t < some; ++t) x[t] = inner + places[m + t] * call.inner;
            products(call.down + at * call.inner, call.inner, x, some, found);
            for (int t = 0; t < some; ++t)
                for (int r = 0; r < R; ++r)
                    made[places[m + t] * call.hidden + row + r] = found[r][t] + call.down_bias[at + r];
        }
    }
}

CLONES void mix(const Experts& call, int64_t token, const float* made) {
    const float *weights = call.weights + token * call.each, *from = made + token * call.each * call.hidden;
    for (int64_t d = 0; d < call.hidden; ++d) {
        float sum = 0.0f;
        for (int64_t e = 0; e < call.each; ++e) sum = __builtin_fmaf(weights[e], from[e * call.hidden + d], sum);
        call.out[token * call.hidden + d] = sum;
    }
}

}  // namespace

extern "C" void riallm_experts(int threads, const Experts* given) {
    const Experts& call = *given;
    const int64_t total = call.num * call.each;
    std::vector<int64_t> begins(call.experts + 1), places(total);
    for (int64_t i = 0; i < total; ++i) ++begins[call.chosen[i] + 1];
    for (int64_t e = 0; e < call.experts; ++e) begins[e + 1] += begins[e];
    std::vector<int64_t> next(begins.begin(), begins.end() - 1);
    for (int64_t i = 0; i < total; ++i) places[next[call.chosen[i]]++] = i;

    struct Work {
        int64_t expert, first;
    };
    std::vector<Work> wide, back;
    for (int64_t e = 0; e < call.experts; ++e) {
        if (begins[e] == begins[e + 1]) continue;
        for (int64_t row = 0; row < call.inner; row += BLOCK) wide.push_back({e, row});
        for (int64_t row = 0; row < call.hidden; row += BLOCK) back.push_back({e, row});
    }
    std::vector<float> inner(total * call.inner), made(total * call.hidden);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < wide.size(); ++i) {
            const int64_t begin = begins[wide[i].expert], num = begins[wide[i].expert + 1] - begin;
            const int64_t last = std::min(wide[i].first + BLOCK, call.inner);
            widen(call, wide[i].expert, &places[begin], num, wide[i].first, last, inner.data());
        }
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < back.size(); ++i) {
            const int64_t begin = begins[back[i].expert], num = begins[back[i].expert + 1] - begin;
            const int64_t last = std::min(back[i].first + BLOCK, call.hidden);
            narrow(call, back[i].expert, &places[begin], num, back[i].first, last, inner.data(), made.data());
        }
#pragma omp for schedule(static)
        for (int64_t token = 0; token < call.num; ++token) mix(call, token, made.data());
    }
}
