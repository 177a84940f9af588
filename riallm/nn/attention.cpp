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
#include <vector>

#include "pages.h"

namespace {

constexpr int BLOCK = 8;     // queries that share the conversion of a page
constexpr int TOGETHER = 4;  // queries, each of a head, that share what is loaded
constexpr int SAME = 1;      // relations between files, as `Relation` has them: none 0, same 1, the others are linked

CLONES void widen(const Call& call, const void* from, int64_t at, int64_t size, float* to) {
    if (call.kept == FLOAT32) {
        std::memcpy(to, static_cast<const float*>(from) + at, size * 4);
    } else if (call.kept == BFLOAT16) {
        const uint16_t* source = static_cast<const uint16_t*>(from) + at;
        for (int64_t i = 0; i < size; ++i) to[i] = as_float(static_cast<uint32_t>(source[i]) << 16);
    } else {
        const int8_t* source = static_cast<const int8_t*>(from) + at;
        for (int64_t i = 0; i < size; ++i) to[i] = static_cast<float>(source[i]);
    }
}

// Scores (64) of R queries: dimension after dimension; a key that is loaded serves all of them.
template <int R>
INLINE void scores_of(const float* const* q, const float* keys, int64_t size, float scale, float (*scores)[PAGE]) {
    Lanes sums[R][4] = {};
    for (int64_t i = 0; i < size; ++i)
        UNROLL for (int part = 0; part < 4; ++part) {
            const Lanes key = load(keys + i * PAGE + part * 16);
            UNROLL for (int r = 0; r < R; ++r) sums[r][part] = fused(q[r][i], key, sums[r][part]);
        }
    for (int r = 0; r < R; ++r)
        for (int part = 0; part < 4; ++part) store(scores[r] + part * 16, sums[r][part] * scale);
}

CLONES void score(const float* const* q, int num, const float* keys, int64_t size, float scale, float (*scores)[PAGE]) {
    if (num == 4) return scores_of<4>(q, keys, size, scale, scores);
    if (num >= 2) scores_of<2>(q, keys, size, scale, scores);
    if (num % 2) scores_of<1>(q + num - 1, keys, size, scale, scores + num - 1);
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
    *total = __builtin_fmaf(*total, kept, total_of((load(scores) + load(scores + 16)) + (load(scores + 32) + load(scores + 48))));
    *largest = most;
    for (int64_t d = 0; d < size; ++d) sums[d] *= kept;
}

// Key after key; 64 dimensions, or one, at a time.
template <int R>
INLINE void add_to(const float (*weights)[PAGE], const float* values, int64_t size, float* sums) {
    int64_t at = 0;
    for (; at + 64 <= size; at += 64) {
        Lanes own[R][4];
        for (int r = 0; r < R; ++r)
            for (int part = 0; part < 4; ++part) own[r][part] = load(sums + r * size + at + part * 16);
        for (int j = 0; j < PAGE; ++j)
            UNROLL for (int part = 0; part < 4; ++part) {
                const Lanes value = load(values + j * size + at + part * 16);
                UNROLL for (int r = 0; r < R; ++r) own[r][part] = fused(weights[r][j], value, own[r][part]);
            }
        for (int r = 0; r < R; ++r)
            for (int part = 0; part < 4; ++part) store(sums + r * size + at + part * 16, own[r][part]);
    }
    for (; at < size; ++at)
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < PAGE; ++j)
                sums[r * size + at] = __builtin_fmaf(weights[r][j], values[j * size + at], sums[r * size + at]);
}

CLONES void add(const float (*weights)[PAGE], int num, const float* values, int64_t size, float* sums) {
    if (num == 4) return add_to<4>(weights, values, size, sums);
    if (num >= 2) add_to<2>(weights, values, size, sums);
    if (num % 2) add_to<1>(weights + num - 1, values, size, sums + (num - 1) * size);
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
    if (call.local < 0 && !terms) {  // only what comes after is not seen
        std::fill(scores + std::max<int64_t>(0, std::min<int64_t>(count, at - first + 1)), scores + PAGE, -INFINITY);
        return;
    }
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
    alignas(64) float scores[TOGETHER][PAGE];
    for (int64_t first = 0; first <= to; first += PAGE) {
        const int count = static_cast<int>(std::min<int64_t>(PAGE, own.num_tokens - first));
        if (!seen(call, own, from, to, first, first + count)) continue;
        const int64_t place = own.pages[first / PAGE] * call.kv_heads + group;
        widen(call, call.keys, place * size * PAGE, size * PAGE, keys.data());
        widen(call, call.values, place * size * PAGE, size * PAGE, values.data());
        if (call.kept == INT8) {
            for (int64_t d = 0; d < size; ++d)
                for (int j = 0; j < PAGE; ++j) keys[d * PAGE + j] *= call.key_scales[place * PAGE + j];
            for (int j = 0; j < PAGE; ++j)
                for (int64_t d = 0; d < size; ++d) values[j * size + d] *= call.value_scales[place * PAGE + j];
        }
        for (int64_t r = 0; r < rows; r += TOGETHER) {
            const int num = static_cast<int>(std::min<int64_t>(TOGETHER, rows - r));
            const float* q[TOGETHER];
            for (int i = 0; i < num; ++i)
                q[i] = call.q + ((row + (r + i) / heads) * call.heads + group * heads + (r + i) % heads) * size;
            score(q, num, keys.data(), size, scale, scores);
            for (int i = 0; i < num; ++i) {
                relate(call, own, from + (r + i) / heads, first, count, group * heads + (r + i) % heads, scores[i]);
                weigh(scores[i], &largest[r + i], &total[r + i], &sums[(r + i) * size], size);
            }
            add(scores, num, values.data(), size, &sums[r * size]);
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
