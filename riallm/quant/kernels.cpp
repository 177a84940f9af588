// Packed matrices times activations: y (M, O) = x (M, I) @ W^T + bias. A plain C interface, no headers of others.
//
// A panel is 32 rows of W side by side, as `prepared.py` lays them out, so that one instruction multiplies four columns
// of sixteen rows. Codes are unpacked in registers and used for several rows of x. Every instruction set does the same:
//
//   x is rounded to whole numbers of 8 bits in groups of 32 columns; dots are exact in 32 bits; and
//   y = y + (scale_w * scale_x) * dot, group after group, each operation rounded once (no fused multiply-add);
//   q4_k goes on with y = y - minimum * (scale_x * sum of the rounded x).
//   nf4 stays in float32: two chains of 32 columns in a block of 64, then y = y + scale * (chain + chain).
//
// So a row of y is the same bits whatever the batch and the machine. Letters: M rows of x, O outputs, I columns.
#include <algorithm>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int PANEL = 32, CHUNK = 256, GROUP = 32, BLOCK = 64;  // rows; columns
constexpr int MAX_ROWS = 96;            // of x that share one unpacking; a multiple of every tile
constexpr int64_t CACHED = 512 * 1024;  // bytes of x that stay near a core while panels pass
constexpr int AHEAD = 3072;  // bytes of W asked for before they are used, a little at a time: many at once would wait

enum Kind { INT4, INT8, NF4, Q4_K, Q6_K };

// Bytes of a panel for so many columns, and what is added to codes so that none is below zero.
constexpr int CODES_OF_32[] = {512, 1024, 512, 512, 768};
constexpr int SCALES_OF_256[] = {512, 512, 256, 640, 576};
constexpr int OFFSET[] = {8, 128, 0, 0, 32};
constexpr int quads(int kind) { return kind == Q6_K ? 4 : 8; }  // fours of columns under one scale
constexpr int group_bytes(int kind) { return CODES_OF_32[kind] * quads(kind) / 8; }  // their codes in a panel

const float LEVELS[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                          -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                          0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                          0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

struct Job {
    int64_t kind, rows, outputs, columns;
    int64_t x_bfloat16, y_bfloat16;
    const void* x;
    const uint8_t *codes, *scales;
    const float* bias;  // or null
    void* y;
    int64_t y_step;  // from one row of y to the next
    // Workspace: x rounded, (M, I); its scales, (M, I / 32); and for each scale of W the starting value of a dot,
    // -OFFSET * sum, or for q4_k scale * sum as a float, (M, I / 32 or 16). For nf4 x in float32 alone.
    int8_t* rounded;
    float* x_scales;
    int32_t* starts;
    float* plain;
};

// Rows of x for one tile: pointers at its first row and first column, and the distance to the next row.
struct Rows {
    const int8_t* x;
    const float* scales;
    const int32_t* starts;
    int64_t x_step, scales_step, starts_step;
};

#define INLINE inline __attribute__((always_inline))

INLINE float as_float(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
INLINE uint32_t as_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }
INLINE int32_t four(const int8_t* from) { int32_t value; std::memcpy(&value, from, 4); return value; }

INLINE float half(uint16_t bits) {
    const uint32_t sign = (bits & 0x8000u) << 16, rest = (bits & 0x7fffu) << 13;
    if (rest < 0x00800000) return as_float(as_bits((bits & 0x3ff) * 0x1p-24f) | sign);
    return as_float((rest + (rest < 0x0f800000 ? 112u << 23 : 224u << 23)) | sign);
}

INLINE uint16_t bfloat16(float value) {
    const uint32_t bits = as_bits(value);
    return value != value ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// ---------------------------------------------------------------- x, made ready

INLINE void read_group(const Job& job, int64_t at, float* to) {
    if (job.x_bfloat16)
        for (int i = 0; i < GROUP; ++i)
            to[i] = as_float(static_cast<uint32_t>(static_cast<const uint16_t*>(job.x)[at + i]) << 16);
    else
        std::memcpy(to, static_cast<const float*>(job.x) + at, GROUP * sizeof(float));
}

// Group `place` of 32 columns, counted through all rows. What is no number makes the scale none, and so the whole row
// of y; groups below SMALLEST are zeros, since the inverse of their scale would overflow.
INLINE void round_group(const Job& job, int64_t place) {
    constexpr int32_t NO_NUMBER = 0x7f800000, SMALLEST = 0x0d800000;  // infinity, 2^-100
    alignas(64) float x[GROUP];
    alignas(64) int32_t codes[GROUP];
    read_group(job, place * GROUP, x);
    if (job.kind == NF4) {
        std::memcpy(job.plain + place * GROUP, x, sizeof x);
        return;
    }
    int32_t largest = 0;
    for (int i = 0; i < GROUP; ++i) largest = std::max(largest, static_cast<int32_t>(as_bits(x[i]) & 0x7fffffffu));
    const bool number = largest < NO_NUMBER, kept = number && largest >= SMALLEST;
    const float inverse = kept ? 127.0f / as_float(largest) : 0.0f;
    job.x_scales[place] = kept ? as_float(largest) / 127.0f : number ? 0.0f : as_float(0x7fc00000);
    if (!number) std::memset(x, 0, sizeof x);
    // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even, and leaves it in the lowest bits.
    for (int i = 0; i < GROUP; ++i) codes[i] = static_cast<int32_t>(as_bits(x[i] * inverse + 12582912.0f)) - 0x4b400000;
    int8_t* bytes = job.rounded + place * GROUP;
    for (int i = 0; i < GROUP; ++i) bytes[i] = static_cast<int8_t>(codes[i]);
    int32_t near = 0, far = 0;
    for (int i = 0; i < GROUP / 2; ++i) near += codes[i], far += codes[GROUP / 2 + i];
    if (job.kind == Q6_K) {
        job.starts[2 * place] = -OFFSET[Q6_K] * near;
        job.starts[2 * place + 1] = -OFFSET[Q6_K] * far;
    } else if (job.kind == Q4_K) {
        const float product = job.x_scales[place] * static_cast<float>(near + far);
        std::memcpy(job.starts + place, &product, 4);
    } else {
        job.starts[place] = -OFFSET[job.kind] * (near + far);
    }
}

// ---------------------------------------------------------------- scales of W

struct Scales {  // of a chunk, as [scale][row]
    alignas(64) float scales[CHUNK / 16 * PANEL];
    alignas(64) float minima[CHUNK / GROUP * PANEL];
};

// The scales of `groups` times 32 columns of a panel in float32.
template <class Set, int KIND>
INLINE void widen(const uint8_t* from, int groups, Scales& to) {
    if constexpr (KIND == INT4 || KIND == INT8) Set::halves(from, to.scales, groups * PANEL);
    if constexpr (KIND == NF4) Set::halves(from, to.scales, groups / 2 * PANEL);
    if constexpr (KIND == Q4_K) {
        alignas(64) float whole[2 * PANEL];
        Set::halves(from + 512, whole, 2 * PANEL);
        for (int g = 0; g < 8; ++g)
            for (int r = 0; r < PANEL; ++r) {
                to.scales[g * PANEL + r] = whole[r] * static_cast<float>(from[2 * g * PANEL + r]);
                to.minima[g * PANEL + r] = whole[PANEL + r] * static_cast<float>(from[(2 * g + 1) * PANEL + r]);
            }
    }
    if constexpr (KIND == Q6_K) {
        alignas(64) float whole[PANEL];
        Set::halves(from + 512, whole, PANEL);
        for (int g = 0; g < 16; ++g)
            for (int r = 0; r < PANEL; ++r)
                to.scales[g * PANEL + r] = whole[r] * static_cast<float>(static_cast<int8_t>(from[g * PANEL + r]));
    }
}

// ---------------------------------------------------------------- what differs between instruction sets

// A vector is LANES of 32 bits: floats, or of as many rows four columns each as bytes.
template <int LANES>
struct Vectors {
    typedef float Floats __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));
    typedef int32_t Ints __attribute__((vector_size(4 * LANES), may_alias, aligned(1)));
    typedef uint32_t Fours __attribute__((vector_size(4 * LANES), may_alias, aligned(1)));
};

struct Plain : Vectors<4> {
    static constexpr int LANES = 4, ROWS = 1, ROWS_NF4 = 1;

    static void halves(const uint8_t* from, float* to, int num) {
        for (int i = 0; i < num; ++i) to[i] = half(static_cast<uint16_t>(from[2 * i] | from[2 * i + 1] << 8));
    }
    static Ints all(int32_t value) { return Ints{value, value, value, value}; }
    // sum + the products of four columns of w (unsigned) with the four of x (signed)
    template <int KIND>
    static Ints dot(Ints sum, Fours w, int32_t x) {
        for (int c = 0; c < 32; c += 8) sum += (Ints)((w >> c) & 255u) * static_cast<int8_t>(x >> c);
        return sum;
    }
    static Floats level(Fours w) {  // of the lowest four bits
        return Floats{LEVELS[w[0] & 15], LEVELS[w[1] & 15], LEVELS[w[2] & 15], LEVELS[w[3] & 15]};
    }
};

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")))

struct Avx2 : Vectors<8> {
    static constexpr int LANES = 8, ROWS = 2, ROWS_NF4 = 4;

    AVX2 static void halves(const uint8_t* from, float* to, int num) {
        for (int i = 0; i < num; i += 8)
            _mm256_store_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + 2 * i))));
    }
    AVX2 static inline Ints all(int32_t value) { return (Ints)_mm256_set1_epi32(value); }
    template <int KIND>
    AVX2 static inline Ints dot(Ints sum, Fours four, int32_t x4) {
        const __m256i w = (__m256i)four, x = _mm256_set1_epi32(x4);
        if constexpr (KIND != INT8)
            return sum + (Ints)_mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
        // Two products with codes of 8 bits do not fit into the 16 bits of maddubs, so columns are widened before.
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), odd = _mm256_srai_epi16(x, 8);
        return sum + (Ints)_mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)), even) +
               (Ints)_mm256_madd_epi16(_mm256_srli_epi16(w, 8), odd);
    }
    AVX2 static inline Floats level(Fours four) {
        // The lowest three bits choose within a half of the table; the fourth, moved to the top, chooses the half.
        const __m256i w = (__m256i)four;
        const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(LEVELS), w);
        const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(LEVELS + 8), w);
        return (Floats)_mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(w, 28)));
    }
};

struct Avx512 : Vectors<16> {
    static constexpr int LANES = 16, ROWS = 6, ROWS_NF4 = 6;

    AVX512 static void halves(const uint8_t* from, float* to, int num) {
        for (int i = 0; i < num; i += 16)
            _mm512_store_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(from + 2 * i))));
    }
    AVX512 static inline Ints all(int32_t value) { return (Ints)_mm512_set1_epi32(value); }
    template <int KIND>
    AVX512 static inline Ints dot(Ints sum, Fours w, int32_t x) {
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(x));
    }
    AVX512 static inline Floats level(Fours w) {
        return (Floats)_mm512_permutexvar_ps((__m512i)w, _mm512_loadu_ps(LEVELS));
    }
};
#endif

// ---------------------------------------------------------------- R rows of x by a panel

#define UNROLL _Pragma("GCC unroll 8")

// Columns 4 q .. 4 q + 3 of a group for LANES rows; `group` is where these rows begin.
template <class Set, int KIND>
INLINE typename Set::Fours fours(const uint8_t* group, int q) {
    typedef const typename Set::Fours* At;
    constexpr int HALF = quads(KIND) / 2;
    if constexpr (KIND == INT8) return *At(group + q * 128);
    const typename Set::Fours pairs = *At(group + q % HALF * 128);
    const typename Set::Fours low = (q < HALF ? pairs : pairs >> 4) & 0x0f0f0f0fu;
    if constexpr (KIND != Q6_K) return low;
    const typename Set::Fours high = *At(group + 256);
    return low | ((q < HALF ? high << (4 - 2 * q) : high >> (2 * q - 4)) & 0x30303030u);
}

template <class Set, int KIND, int R>
INLINE void tile(const Rows& rows, const uint8_t* codes, const Scales& scales, int num_scales, float* y) {
    typedef typename Set::Floats Floats;
    typedef typename Set::Ints Ints;
    constexpr int QUADS = quads(KIND), VECTORS = PANEL / Set::LANES;
    Floats sums[R][VECTORS];
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int v = 0; v < VECTORS; ++v) sums[r][v] = *(const Floats*)(y + r * PANEL + v * Set::LANES);
    for (int g = 0; g < num_scales; ++g) {
        Ints dots[R][VECTORS];
        UNROLL for (int r = 0; r < R; ++r)
            UNROLL for (int v = 0; v < VECTORS; ++v)
                dots[r][v] = KIND == Q4_K ? Ints{} : Set::all(rows.starts[r * rows.starts_step + g]);
        UNROLL for (int q = 0; q < QUADS; ++q) {
            typename Set::Fours w[VECTORS];
            UNROLL for (int v = 0; v < VECTORS; ++v) w[v] = fours<Set, KIND>(codes + v * 4 * Set::LANES, q);
            UNROLL for (int r = 0; r < R; ++r) {
                const int32_t x = four(rows.x + r * rows.x_step + 4 * (g * QUADS + q));
                UNROLL for (int v = 0; v < VECTORS; ++v) dots[r][v] = Set::template dot<KIND>(dots[r][v], w[v], x);
            }
        }
        for (int i = 0; i < group_bytes(KIND); i += 64) __builtin_prefetch(codes + AHEAD + i);
        codes += group_bytes(KIND);
        UNROLL for (int v = 0; v < VECTORS; ++v) {
            const Floats scale = *(const Floats*)(scales.scales + g * PANEL + v * Set::LANES);
            UNROLL for (int r = 0; r < R; ++r) {
                const float x_scale = rows.scales[r * rows.scales_step + g * QUADS / 8];
                sums[r][v] = sums[r][v] + (scale * x_scale) * __builtin_convertvector(dots[r][v], Floats);
                if constexpr (KIND == Q4_K)
                    sums[r][v] = sums[r][v] - *(const Floats*)(scales.minima + g * PANEL + v * Set::LANES) *
                                                  as_float(rows.starts[r * rows.starts_step + g]);
            }
        }
    }
    UNROLL for (int r = 0; r < R; ++r)
        UNROLL for (int v = 0; v < VECTORS; ++v) *(Floats*)(y + r * PANEL + v * Set::LANES) = sums[r][v];
}

// A block of 64 columns of nf4; rows of x are `step` apart.
template <class Set, int R>
INLINE void tile_nf4(const float* x, int64_t step, const uint8_t* codes, const float* scales, float* y) {
    typedef typename Set::Floats Floats;
    for (int v = 0; v < PANEL / Set::LANES; ++v) {
        Floats chains[R][2];
        UNROLL for (int r = 0; r < R; ++r) chains[r][0] = chains[r][1] = Floats{};
        for (int j = 0; j < 8; ++j) {
            const uint8_t* from = codes + (j * PANEL + v * Set::LANES) * 4;
            __builtin_prefetch(from + AHEAD);
            const typename Set::Fours w = *(const typename Set::Fours*)from;
            UNROLL for (int k = 0; k < 8; ++k) {
                const Floats level = Set::level(w >> (4 * k));
                const float* at = x + j / 4 * 32 + j % 4 * 4 + k / 2 + k % 2 * 16;
                UNROLL for (int r = 0; r < R; ++r) chains[r][k % 2] = chains[r][k % 2] + level * at[r * step];
            }
        }
        const Floats scale = *(const Floats*)(scales + v * Set::LANES);
        UNROLL for (int r = 0; r < R; ++r) {
            Floats* to = (Floats*)(y + r * PANEL + v * Set::LANES);
            *to = *to + scale * (chains[r][0] + chains[r][1]);
        }
    }
}

// ---------------------------------------------------------------- a panel for rows m0 .. m1 of x

// As many tiles of R rows from row m on as there are; returns the first row that is left.
template <class Set, int KIND, int R>
INLINE int64_t tiles(const Job& job, int64_t m, int64_t m0, int64_t m1, int64_t column, int groups,
                     const uint8_t* codes, const Scales& scales, float* y) {
    for (; m + R <= m1; m += R) {
        float* to = y + (m - m0) * PANEL;
        const int64_t x = m * job.columns + column;
        if constexpr (KIND == NF4) {
            const float *from = job.plain + x, *scale = scales.scales;
            for (int b = 0; b < groups / 2; ++b)
                tile_nf4<Set, R>(from + b * BLOCK, job.columns, codes + b * 1024, scale + b * PANEL, to);
        } else {
            constexpr int WIDTH = 4 * quads(KIND);
            const Rows rows = {job.rounded + x, job.x_scales + x / GROUP, job.starts + x / WIDTH,
                               job.columns, job.columns / GROUP, job.columns / WIDTH};
            tile<Set, KIND, R>(rows, codes, scales, groups * GROUP / WIDTH, to);
        }
    }
    return m;
}

template <class Set, int KIND>
INLINE void panel(const Job& job, int64_t m0, int64_t m1, int64_t at) {
    constexpr int MOST = KIND == NF4 ? Set::ROWS_NF4 : Set::ROWS;
    alignas(64) float y[MAX_ROWS * PANEL];
    Scales wide;
    std::memset(y, 0, (m1 - m0) * PANEL * sizeof(float));
    const uint8_t* codes = job.codes + at * (job.columns / GROUP) * CODES_OF_32[KIND];
    const uint8_t* scales = job.scales + at * (job.columns / GROUP) * SCALES_OF_256[KIND] / 8;
    for (int64_t column = 0; column < job.columns; column += CHUNK) {
        const int groups = static_cast<int>(std::min<int64_t>(CHUNK, job.columns - column)) / GROUP;
        const int num_bytes = groups * CODES_OF_32[KIND], scale_bytes = groups * SCALES_OF_256[KIND] / 8;
        for (int i = 0; i < scale_bytes; i += 64) __builtin_prefetch(scales + scale_bytes + i);
        widen<Set, KIND>(scales, groups, wide);
        int64_t m = tiles<Set, KIND, MOST>(job, m0, m0, m1, column, groups, codes, wide, y);
        if constexpr (MOST > 3) m = tiles<Set, KIND, 3>(job, m, m0, m1, column, groups, codes, wide, y);
        if constexpr (MOST > 1) tiles<Set, KIND, 1>(job, m, m0, m1, column, groups, codes, wide, y);
        codes += num_bytes;
        scales += scale_bytes;
    }
    const int64_t first = at * PANEL, num = std::min<int64_t>(PANEL, job.outputs - first);
    for (int64_t m = m0; m < m1; ++m)
        for (int64_t r = 0; r < num; ++r) {
            const float value = y[(m - m0) * PANEL + r] + (job.bias ? job.bias[first + r] : 0.0f);
            const int64_t to = m * job.y_step + first + r;
            if (job.y_bfloat16) static_cast<uint16_t*>(job.y)[to] = bfloat16(value);
            else static_cast<float*>(job.y)[to] = value;
        }
}

// What a path consists of: functions compiled for one instruction set, whose inlined parts are above.
struct Path {
    void (*round)(const Job&, int64_t);
    void (*panel[5])(const Job&, int64_t, int64_t, int64_t);
};

#define PATH(NAME, SET, TARGET)                                                                           \
    TARGET void round_##NAME(const Job& job, int64_t place) { round_group(job, place); }                   \
    template <int KIND>                                                                                   \
    TARGET void panel_##NAME(const Job& job, int64_t m0, int64_t m1, int64_t at) {                         \
        panel<SET, KIND>(job, m0, m1, at);                                                                \
    }                                                                                                     \
    const Path NAME = {round_##NAME, {panel_##NAME<INT4>, panel_##NAME<INT8>, panel_##NAME<NF4>,           \
                                      panel_##NAME<Q4_K>, panel_##NAME<Q6_K>}};

PATH(plain, Plain, /* any */)
#if defined(__x86_64__)
PATH(avx2, Avx2, AVX2)
PATH(avx512, Avx512, AVX512)
const Path* const PATHS[] = {&plain, &avx2, &avx512};
#else
const Path* const PATHS[] = {&plain};
#endif

}  // namespace

extern "C" {

// The best path of this processor: 0 plain, 1 AVX2, 2 AVX-512 with VNNI; each holds those below it.
int riallm_best_path() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2");  // which never comes without F16C
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        return 2;
    return avx2 ? 1 : 0;
#else
    return 0;
#endif
}

// rows, outputs, columns are M, O, I. x and y are float32, or bfloat16 where the flag says so, rows of y y_step numbers
// apart; bias is float32 or null.
// The workspace has M * I * 4 bytes for nf4 and M * I * 11 / 8 otherwise.
void riallm_linear(int path, int threads, int64_t kind, int64_t rows, int64_t outputs, int64_t columns, const void* x,
                   int x_bfloat16, const void* codes, const void* scales, const float* bias, void* y, int64_t y_step,
                   int y_bfloat16, void* workspace) {
    Job job = {};
    job.kind = kind, job.rows = rows, job.outputs = outputs, job.columns = columns;
    job.x = x, job.x_bfloat16 = x_bfloat16, job.bias = bias;
    job.y = y, job.y_step = y_step, job.y_bfloat16 = y_bfloat16;
    job.codes = static_cast<const uint8_t*>(codes), job.scales = static_cast<const uint8_t*>(scales);
    job.plain = static_cast<float*>(workspace);
    job.rounded = static_cast<int8_t*>(workspace);
    job.x_scales = reinterpret_cast<float*>(job.rounded + rows * columns);
    job.starts = reinterpret_cast<int32_t*>(job.x_scales + rows * columns / GROUP);
    const Path& chosen = *PATHS[path];
    const int64_t groups = columns / GROUP, panels = (outputs + PANEL - 1) / PANEL;
    const int64_t most = std::max<int64_t>(6, std::min<int64_t>(MAX_ROWS, CACHED / columns / 6 * 6));
    // Handing a few groups to other threads takes longer than rounding them.
    const int64_t alone = rows * groups <= 512 ? rows * groups : 0;
    for (int64_t place = 0; place < alone; ++place) chosen.round(job, place);
#pragma omp parallel num_threads(threads)
    {
        if (!alone) {
#pragma omp for schedule(static)
            for (int64_t place = 0; place < rows * groups; ++place) chosen.round(job, place);
        }
        for (int64_t m = 0; m < rows; m += most) {
#pragma omp for schedule(guided) nowait
            for (int64_t at = 0; at < panels; ++at) chosen.panel[kind](job, m, std::min(rows, m + most), at);
        }
    }
}
}
