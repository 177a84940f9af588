// A pass of a decoder's blocks over N tokens: operations one after the other, on buffers of float32, a row a token.
// Matrices stay packed and are multiplied by the kernel of `riallm.quant`; attention is that of `attention.cpp`. Both
// come as pointers, so that each kernel stands in one library.
//
// Every operation computes a row by itself and in one order: so a row is the same bits whatever the batch, on every
// instruction set and with any number of threads.
//
// Letters: N tokens, H heads, G key-value heads, K head size, R rank of a path, W columns of a row.
#include <algorithm>
#include <chrono>

#include "pages.h"

namespace {

enum Kind { NORM, LINEAR, SMALL, HEADS, ATTEND, SWIGLU, SQUARED_RELU, PATHS, ADD, MIX };

typedef void Linear(int path, int threads, int64_t kind, int64_t rows, int64_t outputs, int64_t columns, const void* x,
                    int x_bfloat16, const void* codes, const void* scales, const float* bias, void* y, int64_t y_step,
                    int y_bfloat16, void* workspace);
typedef void Attend(int threads, const Call* call, const Stretch* stretches, int64_t num_stretches);

}  // namespace

extern "C" {

// from, to: numbers of buffers; first: column of `to` where the result begins.
struct Op {
    int64_t kind, from, to, first;
    int64_t columns, outputs;    // of a matrix; of other operations columns alone: those of `to`
    int64_t matrix, layer;       // how a matrix is packed; the layer whose pages are meant
    const void *codes, *scales;  // a packed matrix; of SMALL the weights (O, I) in float32 stand in codes
    const float *one, *other;    // NORM: gain or null; LINEAR, SMALL: bias or null; HEADS: gains; MIX: two factors
    float eps;                   // of norms; HEADS: below zero for none
};

struct Program {
    int64_t num_ops, num_buffers;
    const Op* ops;
    const int64_t* widths;  // floats in a row of each buffer
    int path;
    Linear* linear;
    Attend* attend;
};

struct Run {
    int threads;
    int64_t rows, layer_pages;    // N; pages of one layer
    Call call;                    // of layer 0, with neither q nor out
    float** buffers;
    const float *cosine, *sine;   // (N, K / 2)
    const int64_t* places;        // (N): page times PAGE plus the place in it
    Stretch* stretches;
    int64_t num_stretches;
    const float* const* terms;    // (layers, stretches) of (H, F, F), or null
    void* workspace;              // of the largest matrix
    double* seconds;              // for each operation, added to
};
}

namespace {

INLINE uint16_t bfloat16(float value) {
    const uint32_t bits = as_bits(value);
    return value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

INLINE float sigmoid(float x) {
    const float small = exponential(x < 0.0f ? x : -x), rest = 1.0f / (1.0f + small);
    return x < 0.0f ? small * rest : rest;
}

// Sum of products in sixteen chains, then the tail.
INLINE float dot(const float* a, const float* b, int64_t size) {
    Lanes lanes = {};
    int64_t i = 0;
    for (; i + 16 <= size; i += 16) {
        const Lanes left = load(a + i), right = load(b + i);
        for (int k = 0; k < 16; ++k) lanes[k] = __builtin_fmaf(left[k], right[k], lanes[k]);
    }
    float sum = total_of(lanes);
    for (; i < size; ++i) sum = __builtin_fmaf(a[i], b[i], sum);
    return sum;
}

// (W) over its root mean square, times the gain where there is one.
INLINE void norm(const float* from, const float* gain, int64_t size, float eps, float* to) {
    const float inverse = 1.0f / std::sqrt(dot(from, from, size) / static_cast<float>(size) + eps);
    if (gain)
        for (int64_t i = 0; i < size; ++i) to[i] = from[i] * inverse * gain[i];
    else
        for (int64_t i = 0; i < size; ++i) to[i] = from[i] * inverse;
}

INLINE void rotate(const float* from, const float* cosine, const float* sine, int64_t size, float* to) {
    const int64_t half = size / 2;
    for (int64_t i = 0; i < half; ++i) {
        const float first = from[i], second = from[half + i];
        to[i] = first * cosine[i] - second * sine[i];
        to[half + i] = second * cosine[i] + first * sine[i];
    }
}

// Keeps numbers i of `from` at `to + i * step`; 8 bits with the scale that goes to `scale`.
INLINE void keep(int64_t kept, const float* from, int64_t size, void* to, int64_t at, int64_t step, float* scale) {
    if (kept == FLOAT32) {
        for (int64_t i = 0; i < size; ++i) static_cast<float*>(to)[at + i * step] = from[i];
    } else if (kept == BFLOAT16) {
        for (int64_t i = 0; i < size; ++i) static_cast<uint16_t*>(to)[at + i * step] = bfloat16(from[i]);
    } else {
        float largest = 0.0f;
        for (int64_t i = 0; i < size; ++i) largest = std::max(largest, std::fabs(from[i]));
        *scale = largest / 127.0f;
        const float inverse = *scale == 0.0f ? 0.0f : 1.0f / *scale;
        for (int64_t i = 0; i < size; ++i)
            static_cast<int8_t*>(to)[at + i * step] = static_cast<int8_t>(std::nearbyint(from[i] * inverse));
    }
}

// Queries, keys and values of a token, side by side in `from`: queries go turned to `to`, the others to their page.
INLINE void heads(const Run& run, const Op& op, int64_t row, const float* from, float* to, float* room) {
    const Call& call = run.call;
    const int64_t size = call.head_dim, half = size / 2;
    const float *cosine = run.cosine + row * half, *sine = run.sine + row * half;
    for (int64_t h = 0; h < call.heads; ++h) {
        const float* q = from + h * size;
        if (op.eps >= 0.0f) norm(q, op.one, size, op.eps, room), q = room;
        rotate(q, cosine, sine, size, to + h * size);
    }
    const int64_t page = op.layer * run.layer_pages + run.places[row] / PAGE, slot = run.places[row] % PAGE;
    for (int64_t g = 0; g < call.kv_heads; ++g) {
        const float *k = from + (call.heads + g) * size, *v = from + (call.heads + call.kv_heads + g) * size;
        if (op.eps >= 0.0f) norm(k, op.other, size, op.eps, room), k = room;
        rotate(k, cosine, sine, size, room + size);
        const int64_t place = page * call.kv_heads + g, token = place * PAGE + slot;
        keep(call.kept, room + size, size, call.keys, place * size * PAGE + slot, PAGE, call.key_scales + token);
        keep(call.kept, v, size, call.values, token * size, 1, call.value_scales + token);
    }
}

// One row of every operation that is neither a packed matrix nor attention.
CLONES void row_of(const Run& run, const Op& op, int64_t row, const float* from, float* to, float* room) {
    const int64_t size = op.columns;
    switch (op.kind) {
        case NORM: norm(from, op.one, size, op.eps, to); break;
        case SMALL:
            for (int64_t o = 0; o < op.outputs; ++o)
                to[o] = dot(static_cast<const float*>(op.codes) + o * size, from, size) + (op.one ? op.one[o] : 0.0f);
            break;
        case HEADS: heads(run, op, row, from, to, room); break;
        case SWIGLU:
            for (int64_t i = 0; i < size; ++i) to[i] = from[i] * sigmoid(from[i]) * from[size + i];
            break;
        case SQUARED_RELU:
            for (int64_t i = 0; i < size; ++i) to[i] = from[i] > 0.0f ? from[i] * from[i] : from[i] * 0.0f;
            break;
        case PATHS: {  // the gate, then R numbers of the planning and R of the executing path
            const float gate = sigmoid(from[0]);
            for (int64_t i = 0; i < size; ++i) to[i] = (i < size / 2 ? gate : 1.0f - gate) * from[1 + i];
            break;
        }
        case ADD:
            for (int64_t i = 0; i < size; ++i) to[i] += from[i];
            break;
        case MIX:
            for (int64_t i = 0; i < size; ++i) to[i] = op.one[0] * to[i] + op.one[1] * from[i];
            break;
    }
}

void attend(const Program& program, const Run& run, const Op& op) {
    Call call = run.call;
    const int64_t tokens = op.layer * run.layer_pages * call.kv_heads * PAGE;
    const int64_t bytes = tokens * call.head_dim * (call.kept == FLOAT32 ? 4 : call.kept == BFLOAT16 ? 2 : 1);
    call.keys = static_cast<char*>(call.keys) + bytes, call.values = static_cast<char*>(call.values) + bytes;
    if (call.kept == INT8) call.key_scales += tokens, call.value_scales += tokens;
    call.q = run.buffers[op.from], call.out = run.buffers[op.to];
    if (run.terms)
        for (int64_t s = 0; s < run.num_stretches; ++s)
            run.stretches[s].terms = run.terms[op.layer * run.num_stretches + s];
    program.attend(run.threads, &call, run.stretches, run.num_stretches);
}

}  // namespace

extern "C" void riallm_run(const Program* program, const Run* run) {
    constexpr int64_t FEW = 4;  // rows that are done before another thread has heard of them
    auto before = std::chrono::steady_clock::now();
    for (int64_t number = 0; number < program->num_ops; ++number) {
        const Op& op = program->ops[number];
        const int64_t in = program->widths[op.from], out = program->widths[op.to];
        const float* from = run->buffers[op.from];
        float* to = run->buffers[op.to] + op.first;
        if (op.kind == LINEAR) {
            program->linear(program->path, run->threads, op.matrix, run->rows, op.outputs, op.columns, from, 0,
                            op.codes, op.scales, op.one, to, out, 0, run->workspace);
        } else if (op.kind == ATTEND) {
            attend(*program, *run, op);
        } else {
#pragma omp parallel num_threads(run->threads) if (run->rows > FEW)
            {
                float room[2 * 512];  // of a head
#pragma omp for schedule(static)
                for (int64_t row = 0; row < run->rows; ++row)
                    row_of(*run, op, row, from + row * in, to + row * out, room);
            }
        }
        const auto now = std::chrono::steady_clock::now();
        run->seconds[number] += std::chrono::duration<double>(now - before).count();
        before = now;
    }
}
