// Attention of queries to keys and values in pages: out = softmax(q k / sqrt(K) + terms) v, over what a query may see.
// A plain C interface, no headers of others.
//
// A query goes through its pages from the first to the last, and in a page through dimensions and keys in order, with
// one fused multiply-add for each: so what it gets is the same bits whatever else is computed beside it, in however many
// calls its sequence was read, and on every instruction set. Lanes are keys for the scores and dimensions for the sums;
// keys therefore lie dimension by dimension.
//
// Letters: H heads, G key-value heads, K head size, F files of a sequence.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int PAGE = 64;        // tokens of a page
constexpr int BLOCK = 8;        // queries that share the conversion of a page
constexpr int SAME = 1;         // relations between files, as `Relation` has them: none 0, same 1, the others are linked

#if defined(__x86_64__)
#define CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define CLONES
#endif

#define INLINE inline __attribute__((always_inline))

typedef float Lanes __attribute__((vector_size(64)));

INLINE Lanes load(const float* from) { Lanes lanes; std::memcpy(&lanes, from, sizeof lanes); return lanes; }
INLINE void store(float* to, Lanes lanes) { std::memcpy(to, &lanes, sizeof lanes); }
INLINE Lanes fused(float one, Lanes other, Lanes sum) {
    for (int i = 0; i < 16; ++i) sum[i] = __builtin_fmaf(one, other[i], sum[i]);
    return sum;
}

INLINE float as_float(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }

// Rounds to the nearest power of two and takes six terms of the rest; below -87 it is zero. Within 2 units in the last
// place of the true value, and the same operations on every machine.
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
    int32_t bits;
    std::memcpy(&bits, &power, 4);
    const uint32_t scale = static_cast<uint32_t>(bits - 0x4b400000 + 127) << 23;
    float factor;
    std::memcpy(&factor, &scale, 4);
    return x < -87.0f ? 0.0f : sum * factor;
}

}  // namespace

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
    int64_t heads, kv_heads, head_dim, kind;  // kind of keys and values: 0 float32, 1 bfloat16, 2 int8 with scales
    int64_t local, file;                      // ranges; -1: none
    const float* q;                           // (N, H, K)
    const void *keys, *values;                // (P, G, K, PAGE) and (P, G, PAGE, K)
    const float *key_scales, *value_scales;   // (P, G, PAGE), for int8
    float* out;                               // (N, H, K)
};

}

namespace {

CLONES void widen(const Call& call, const void* from, int64_t at, int64_t size, float* to) {
    if (call.kind == 0) {
        std::memcpy(to, static_cast<const float*>(from) + at, size * 4);
    } else if (call.kind == 1) {
        const uint16_t* source = static_cast<const uint16_t*>(from) + at;
        for (int64_t i = 0; i < size; ++i) to[i] = as_float(static_cast<uint32_t>(source[i]) << 16);
    } else {
        const int8_t* source = static_cast<const int8_t*>(from) + at;
        for (int64_t i = 0; i < size; ++i) to[i] = static_cast<float>(source[i]);
    }
}

// Scores (64) of one query: dimension after dimension.
CLONES void score(const float* q, const float* keys, int64_t size, float scale, float* scores) {
    Lanes a = {}, b = {}, c = {}, d = {};
    for (int64_t i = 0; i < size; ++i) {
        const float* key = keys + i * PAGE;
        a = fused(q[i], load(key), a), b = fused(q[i], load(key + 16), b);
        c = fused(q[i], load(key + 32), c), d = fused(q[i], load(key + 48), d);
    }
    store(scores, a * scale), store(scores + 16, b * scale), store(scores + 32, c * scale), store(scores + 48, d * scale);
}

// Weights of a page from its scores, with the largest so far; the sum and what was summed before are brought along.
CLONES void weigh(float* scores, float* largest, float* total, float* sums, int64_t size) {
    float most = *largest, lanes[16];
    for (int i = 0; i < 16; ++i) {
        const float one = scores[i] > scores[i + 16] ? scores[i] : scores[i + 16];
        const float other = scores[i + 32] > scores[i + 48] ? scores[i + 32] : scores[i + 48];
        lanes[i] = one > other ? one : other;
    }
    for (int i = 0; i < 16; ++i) most = lanes[i] > most ? lanes[i] : most;
    if (most == -INFINITY) {
        std::memset(scores, 0, PAGE * sizeof(float));
        return;
    }
    const float kept = *largest == -INFINITY ? 0.0f : exponential(*largest - most);
    for (int j = 0; j < PAGE; ++j) scores[j] = exponential(scores[j] - most);
    for (int i = 0; i < 16; ++i) lanes[i] = (scores[i] + scores[i + 16]) + (scores[i + 32] + scores[i + 48]);
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    *total = __builtin_fmaf(*total, kept, lanes[0]);
    *largest = most;
    for (int64_t d = 0; d < size; ++d) sums[d] *= kept;
}

// Key after key; four, or one, times sixteen dimensions at a time.
CLONES void add(const float* weights, const float* values, int64_t size, float* sums) {
    int64_t at = 0;
    for (; at + 64 <= size; at += 64) {
        Lanes a = load(sums + at), b = load(sums + at + 16), c = load(sums + at + 32), d = load(sums + at + 48);
        for (int j = 0; j < PAGE; ++j) {
            const float* value = values + j * size + at;
            a = fused(weights[j], load(value), a), b = fused(weights[j], load(value + 16), b);
            c = fused(weights[j], load(value + 32), c), d = fused(weights[j], load(value + 48), d);
        }
        store(sums + at, a), store(sums + at + 16, b), store(sums + at + 32, c), store(sums + at + 48, d);
    }
    for (; at < size; ++at)
        for (int j = 0; j < PAGE; ++j) sums[at] = __builtin_fmaf(weights[j], values[j * size + at], sums[at]);
}

// Whether any query of a block may see any key of a page.
bool seen(const Call& call, const Stretch& own, int64_t from, int64_t to, int64_t first, int64_t end) {
    if (first > to) return false;
    if (call.local < 0 || from - (end - 1) < call.local) return true;
    for (int64_t j = first; j < end; ++j)
        for (int64_t i = from; i <= to; ++i) {
            const uint8_t relation = own.relations[own.files[i] * own.num_files + own.files[j]];
            if (relation > SAME || (relation == SAME && i - j < call.file)) return true;
        }
    return false;
}

// Masks scores, and adds the terms of the files.
void relate(const Call& call, const Stretch& own, int64_t at, int64_t first, int count, int64_t head, float* scores) {
    const int64_t row = own.files[at] * own.num_files;
    const float* terms = own.terms ? own.terms + head * own.num_files * own.num_files + row : nullptr;
    for (int j = 0; j < count; ++j) {
        const int64_t distance = at - (first + j), file = own.files[first + j];
        const uint8_t relation = own.relations[row + file];
        const bool visible = distance >= 0 && (call.local < 0 || distance < call.local || relation > SAME ||
                                               (relation == SAME && distance < call.file));
        if (!visible)
            scores[j] = -INFINITY;
        else if (terms)
            scores[j] += terms[file];
    }
    std::fill(scores + count, scores + PAGE, -INFINITY);
}

// A block of queries (places `from` to `to` of the sequence, rows from `row` on) and the heads of one key-value head.
void attend(const Call& call, const Stretch& own, int64_t from, int64_t to, int64_t row, int64_t group) {
    const int64_t size = call.head_dim, heads = call.heads / call.kv_heads, rows = (to - from + 1) * heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    std::vector<float> keys(size * PAGE), values(size * PAGE), sums(rows * size), largest(rows, -INFINITY), total(rows);
    float scores[PAGE];
    for (int64_t first = 0; first <= to; first += PAGE) {
        const int count = static_cast<int>(std::min<int64_t>(PAGE, own.num_tokens - first));
        if (!seen(call, own, from, to, first, first + count)) continue;
        const int64_t place = own.pages[first / PAGE] * call.kv_heads + group;
        widen(call, call.keys, place * size * PAGE, size * PAGE, keys.data());
        widen(call, call.values, place * size * PAGE, size * PAGE, values.data());
        if (call.kind == 2) {
            for (int64_t d = 0; d < size; ++d)
                for (int j = 0; j < PAGE; ++j) keys[d * PAGE + j] *= call.key_scales[place * PAGE + j];
            for (int j = 0; j < PAGE; ++j)
                for (int64_t d = 0; d < size; ++d) values[j * size + d] *= call.value_scales[place * PAGE + j];
        }
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t at = from + r / heads, head = group * heads + r % heads;
            score(call.q + ((row + r / heads) * call.heads + head) * size, keys.data(), size, scale, scores);
            relate(call, own, at, first, count, head, scores);
            weigh(scores, &largest[r], &total[r], &sums[r * size], size);
            add(scores, values.data(), size, &sums[r * size]);
        }
    }
    for (int64_t r = 0; r < rows; ++r) {
        float* out = call.out + ((row + r / heads) * call.heads + group * heads + r % heads) * size;
        for (int64_t d = 0; d < size; ++d) out[d] = sums[r * size + d] / total[r];
    }
}

}  // namespace

extern "C" void riallm_attend(int threads, const Call* call, const Stretch* stretches, int64_t num_stretches) {
    struct Work {
        const Stretch* own;
        int64_t from, to, row, group;
    };
    std::vector<Work> all;
    for (int64_t s = 0; s < num_stretches; ++s) {
        const Stretch& own = stretches[s];
        const int64_t begin = own.num_tokens - (own.last - own.first);
        for (int64_t row = own.first; row < own.last; row += BLOCK)
            for (int64_t group = 0; group < call->kv_heads; ++group) {
                const int64_t from = begin + row - own.first, to = begin + std::min(row + BLOCK, own.last) - own.first - 1;
                all.push_back({&own, from, to, row, group});
            }
    }
    // Late queries see more than early ones: the largest parts first, so that no thread is left with one at the end.
    std::stable_sort(all.begin(), all.end(), [](const Work& a, const Work& b) { return a.to > b.to; });
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (all.size() > 1)
    for (size_t i = 0; i < all.size(); ++i) attend(*call, *all[i].own, all[i].from, all[i].to, all[i].row, all[i].group);
}
