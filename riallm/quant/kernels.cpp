// Packed matrices times activations: y (M, O) = x (M, I) @ W^T + bias. A plain C interface, no headers of others.
//
// A panel is 32 rows of W side by side, as `prepared.py` lays them out, so that one instruction multiplies four columns
// of sixteen rows. 256 columns of a panel at a time are unpacked to bytes (into the first cache, from where all rows of
// x use them); then every instruction set does the same arithmetic:
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

enum Kind { INT4, INT8, NF4, Q4_K, Q6_K };

// Bytes of a panel for so many columns, and what is added to codes so that none is below zero.
constexpr int CODES_OF_32[] = {512, 1024, 512, 512, 768};
constexpr int SCALES_OF_256[] = {512, 512, 256, 640, 576};
constexpr int OFFSET[] = {8, 128, 0, 0, 32};
constexpr int quads(int kind) { return kind == Q6_K ? 4 : 8; }  // fours of columns under one scale

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

struct Chunk {
    alignas(64) uint8_t codes[CHUNK * PANEL];
    alignas(64) float scales[CHUNK / 16 * PANEL];
    alignas(64) float minima[CHUNK / GROUP * PANEL];
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

INLINE float activation(const Job& job, int64_t at) {
    if (!job.x_bfloat16) return static_cast<const float*>(job.x)[at];
    return as_float(static_cast<uint32_t>(static_cast<const uint16_t*>(job.x)[at]) << 16);
}

// A group of 32 columns of row m. What is no number makes the scale none, and so the whole row of y; groups below
// SMALLEST are zeros, since the inverse of their scale would overflow.
INLINE void round_group(const Job& job, int64_t m, int64_t group) {
    constexpr uint32_t NO_NUMBER = 0x7f800000, SMALLEST = 0x0d800000;  // 2^-100
    const int64_t at = m * job.columns + group * GROUP;
    float x[GROUP];
    for (int i = 0; i < GROUP; ++i) x[i] = activation(job, at + i);
    if (job.kind == NF4) {
        std::memcpy(job.plain + at, x, sizeof x);
        return;
    }
    uint32_t largest = 0;
    for (int i = 0; i < GROUP; ++i) largest = std::max(largest, as_bits(x[i]) & 0x7fffffffu);
    const bool kept = largest >= SMALLEST && largest < NO_NUMBER;
    const float inverse = kept ? 127.0f / as_float(largest) : 0.0f;
    const float scale = kept ? as_float(largest) / 127.0f : largest < NO_NUMBER ? 0.0f : as_float(0x7fc00000);
    int32_t sums[2] = {0, 0};
    for (int i = 0; i < GROUP; ++i) {
        // Adding 1.5 * 2^23 rounds to the nearest whole number, ties to even, and leaves it in the lowest bits.
        const float value = kept ? x[i] * inverse : 0.0f;
        const int32_t code = static_cast<int32_t>(as_bits(value + 12582912.0f)) - 0x4b400000;
        job.rounded[at + i] = static_cast<int8_t>(code);
        sums[i / 16] += code;
    }
    const int64_t place = at / GROUP;
    job.x_scales[place] = scale;
    if (job.kind == Q6_K) {
        job.starts[2 * place] = -OFFSET[Q6_K] * sums[0];
        job.starts[2 * place + 1] = -OFFSET[Q6_K] * sums[1];
    } else if (job.kind == Q4_K) {
        const float product = scale * static_cast<float>(sums[0] + sums[1]);
        std::memcpy(job.starts + place, &product, 4);
    } else {
        job.starts[place] = -OFFSET[job.kind] * (sums[0] + sums[1]);
    }
}

// ---------------------------------------------------------------- W, unpacked

// `groups` times 32 columns of a panel: codes as bytes [four of columns][row][column], scales as floats [scale][row].
// Returns where the codes are; 8 bits are used where they lie.
template <class Set, int KIND>
INLINE const uint8_t* unpack(const uint8_t* codes, const uint8_t* scales, int groups, Chunk& to) {
    const int num_bytes = groups * CODES_OF_32[KIND], scale_bytes = groups * SCALES_OF_256[KIND] / 8;
    for (int i = 0; i < num_bytes; i += 64) __builtin_prefetch(codes + num_bytes + i);
    for (int i = 0; i < scale_bytes; i += 64) __builtin_prefetch(scales + scale_bytes + i);
    if constexpr (KIND == INT4 || KIND == Q4_K) {
        for (int g = 0; g < groups; ++g) {
            const uint8_t* from = codes + g * 512;
            uint8_t* bytes = to.codes + g * 1024;
            for (int i = 0; i < 512; ++i) bytes[i] = from[i] & 15;
            for (int i = 0; i < 512; ++i) bytes[512 + i] = from[i] >> 4;
        }
    }
    if constexpr (KIND == INT4 || KIND == INT8) Set::halves(scales, to.scales, groups * PANEL);
    if constexpr (KIND == Q4_K) {
        alignas(64) float whole[2 * PANEL];
        Set::halves(scales + 512, whole, 2 * PANEL);
        for (int g = 0; g < 8; ++g)
            for (int r = 0; r < PANEL; ++r) {
                to.scales[g * PANEL + r] = whole[r] * static_cast<float>(scales[2 * g * PANEL + r]);
                to.minima[g * PANEL + r] = whole[PANEL + r] * static_cast<float>(scales[(2 * g + 1) * PANEL + r]);
            }
    }
    if constexpr (KIND == Q6_K) {
        for (int g = 0; g < 16; ++g) {
            const uint8_t *low = codes + g * 384, *high = low + 256;
            uint8_t* bytes = to.codes + g * 512;
            for (int i = 0; i < 128; ++i) bytes[i] = (low[i] & 15) | ((high[i] & 3) << 4);
            for (int i = 0; i < 128; ++i) bytes[128 + i] = (low[128 + i] & 15) | ((high[i] & 12) << 2);
            for (int i = 0; i < 128; ++i) bytes[256 + i] = (low[i] >> 4) | (high[i] & 48);
            for (int i = 0; i < 128; ++i) bytes[384 + i] = (low[128 + i] >> 4) | ((high[i] & 192) >> 2);
        }
        alignas(64) float whole[PANEL];
        Set::halves(scales + 512, whole, PANEL);
        for (int g = 0; g < 16; ++g)
            for (int r = 0; r < PANEL; ++r)
                to.scales[g * PANEL + r] = whole[r] * static_cast<float>(static_cast<int8_t>(scales[g * PANEL + r]));
    }
    return KIND == INT8 ? codes : to.codes;
}

// ---------------------------------------------------------------- tiles: R rows of x by a panel, in three ways

struct Plain {
    static constexpr int ROWS = 1;

    static void halves(const uint8_t* from, float* to, int num) {
        for (int i = 0; i < num; ++i) to[i] = half(static_cast<uint16_t>(from[2 * i] | from[2 * i + 1] << 8));
    }

    template <int R, int KIND>
    static void tile(const Rows& rows, const uint8_t* codes, const Chunk& chunk, int num_scales, float* y) {
        constexpr int QUADS = quads(KIND);
        for (int g = 0; g < num_scales; ++g) {
            int32_t dots[PANEL];
            for (int r = 0; r < PANEL; ++r) dots[r] = KIND == Q4_K ? 0 : rows.starts[g];
            for (int q = g * QUADS; q < (g + 1) * QUADS; ++q)
                for (int r = 0; r < PANEL; ++r)
                    for (int c = 0; c < 4; ++c) dots[r] += codes[(q * PANEL + r) * 4 + c] * rows.x[4 * q + c];
            const float scale = rows.scales[g * QUADS / 8];
            for (int r = 0; r < PANEL; ++r) {
                y[r] += (chunk.scales[g * PANEL + r] * scale) * static_cast<float>(dots[r]);
                if (KIND == Q4_K) y[r] -= chunk.minima[g * PANEL + r] * as_float(rows.starts[g]);
            }
        }
    }

    template <int R>
    static void tile_nf4(const float* x, int64_t, const uint8_t* codes, const float* scales, float* y) {
        for (int r = 0; r < PANEL; ++r) {
            float chains[2] = {0.0f, 0.0f};
            for (int v = 0; v < 8; ++v)
                for (int c = 0; c < 4; ++c) {
                    const uint8_t pair = codes[(v * PANEL + r) * 4 + c];
                    const float* at = x + v / 4 * 32 + v % 4 * 4 + c;
                    chains[0] += LEVELS[pair & 15] * at[0];
                    chains[1] += LEVELS[pair >> 4] * at[16];
                }
            y[r] += scales[r] * (chains[0] + chains[1]);
        }
    }
};

#if defined(__x86_64__)
#define UNROLL _Pragma("GCC unroll 8")
#define AVX2 __attribute__((target("avx2,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,prefer-vector-width=512")))

struct Avx2 {
    static constexpr int ROWS = 2;

    AVX2 static void halves(const uint8_t* from, float* to, int num) {
        for (int i = 0; i < num; i += 8)
            _mm256_store_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + 2 * i))));
    }

    template <int R, int KIND>
    AVX2 static void tile(const Rows& rows, const uint8_t* codes, const Chunk& chunk, int num_scales, float* y) {
        constexpr int QUADS = quads(KIND);
        const __m256i ones = _mm256_set1_epi16(1);
        for (int g = 0; g < num_scales; ++g) {
            __m256i dots[R][4];
            UNROLL for (int r = 0; r < R; ++r)
                UNROLL for (int v = 0; v < 4; ++v)
                    dots[r][v] = _mm256_set1_epi32(KIND == Q4_K ? 0 : rows.starts[r * rows.starts_step + g]);
            for (int q = g * QUADS; q < (g + 1) * QUADS; ++q)
                UNROLL for (int r = 0; r < R; ++r) {
                    const __m256i x = _mm256_set1_epi32(four(rows.x + r * rows.x_step + 4 * q));
                    UNROLL for (int v = 0; v < 4; ++v) {
                        const __m256i w = _mm256_loadu_si256((const __m256i*)(codes + q * 4 * PANEL + v * 32));
                        __m256i product;
                        if constexpr (KIND == INT8) {
                            // Pairs of 8-bit codes do not fit into the 16 bits of maddubs, so columns are widened.
                            const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
                            product = _mm256_add_epi32(
                                _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(255)), even),
                                _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8)));
                        } else {
                            product = _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ones);
                        }
                        dots[r][v] = _mm256_add_epi32(dots[r][v], product);
                    }
                }
            UNROLL for (int r = 0; r < R; ++r)
                UNROLL for (int v = 0; v < 4; ++v) {
                    const __m256 scale = _mm256_mul_ps(_mm256_load_ps(chunk.scales + g * PANEL + v * 8),
                                                       _mm256_set1_ps(rows.scales[r * rows.scales_step + g * QUADS / 8]));
                    float* to = y + r * PANEL + v * 8;
                    __m256 sum = _mm256_add_ps(_mm256_load_ps(to), _mm256_mul_ps(scale, _mm256_cvtepi32_ps(dots[r][v])));
                    if constexpr (KIND == Q4_K)
                        sum = _mm256_sub_ps(sum, _mm256_mul_ps(_mm256_load_ps(chunk.minima + g * PANEL + v * 8),
                                                _mm256_set1_ps(as_float(rows.starts[r * rows.starts_step + g]))));
                    _mm256_store_ps(to, sum);
                }
        }
    }

    template <int R>
    AVX2 static void tile_nf4(const float* x, int64_t step, const uint8_t* codes, const float* scales, float* y) {
        const __m256 low = _mm256_loadu_ps(LEVELS), high = _mm256_loadu_ps(LEVELS + 8);
        UNROLL for (int v = 0; v < 4; ++v) {
            __m256 chains[R][2];
            UNROLL for (int r = 0; r < R; ++r) chains[r][0] = chains[r][1] = _mm256_setzero_ps();
            for (int j = 0; j < 8; ++j) {
                __m256i w = _mm256_loadu_si256((const __m256i*)(codes + j * 4 * PANEL + v * 32));
                UNROLL for (int k = 0; k < 8; ++k) {
                    // The lowest three bits choose within a half of the table; the fourth, moved to the top, the half.
                    const __m256 level = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, w),
                        _mm256_permutevar8x32_ps(high, w), _mm256_castsi256_ps(_mm256_slli_epi32(w, 28)));
                    const float* at = x + j / 4 * 32 + j % 4 * 4 + k / 2 + k % 2 * 16;
                    UNROLL for (int r = 0; r < R; ++r)
                        chains[r][k % 2] = _mm256_add_ps(
                            chains[r][k % 2], _mm256_mul_ps(level, _mm256_set1_ps(at[r * step])));
                    w = _mm256_srli_epi32(w, 4);
                }
            }
            UNROLL for (int r = 0; r < R; ++r) {
                float* to = y + r * PANEL + v * 8;
                const __m256 sum = _mm256_add_ps(chains[r][0], chains[r][1]);
                _mm256_store_ps(to, _mm256_add_ps(_mm256_load_ps(to),
                                                  _mm256_mul_ps(_mm256_load_ps(scales + v * 8), sum)));
            }
        }
    }
};

struct Avx512 {
    static constexpr int ROWS = 6;

    AVX512 static void halves(const uint8_t* from, float* to, int num) {
        for (int i = 0; i < num; i += 16)
            _mm512_store_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(from + 2 * i))));
    }

    template <int R, int KIND>
    AVX512 static void tile(const Rows& rows, const uint8_t* codes, const Chunk& chunk, int num_scales, float* y) {
        constexpr int QUADS = quads(KIND);
        __m512 sums[R][2];
        UNROLL for (int r = 0; r < R; ++r)
            UNROLL for (int v = 0; v < 2; ++v) sums[r][v] = _mm512_load_ps(y + r * PANEL + v * 16);
        for (int g = 0; g < num_scales; ++g) {
            __m512i dots[R][2];
            UNROLL for (int r = 0; r < R; ++r)
                dots[r][0] = dots[r][1] = _mm512_set1_epi32(KIND == Q4_K ? 0 : rows.starts[r * rows.starts_step + g]);
            UNROLL for (int q = 0; q < QUADS; ++q) {
                const __m512i w0 = _mm512_loadu_si512(codes), w1 = _mm512_loadu_si512(codes + 64);
                codes += 4 * PANEL;
                UNROLL for (int r = 0; r < R; ++r) {
                    const __m512i x = _mm512_set1_epi32(four(rows.x + r * rows.x_step + 4 * (g * QUADS + q)));
                    dots[r][0] = _mm512_dpbusd_epi32(dots[r][0], w0, x);
                    dots[r][1] = _mm512_dpbusd_epi32(dots[r][1], w1, x);
                }
            }
            UNROLL for (int v = 0; v < 2; ++v) {
                const __m512 scale = _mm512_load_ps(chunk.scales + g * PANEL + v * 16);
                UNROLL for (int r = 0; r < R; ++r) {
                    const __m512 x_scale = _mm512_set1_ps(rows.scales[r * rows.scales_step + g * QUADS / 8]);
                    const __m512 dot = _mm512_cvtepi32_ps(dots[r][v]);
                    sums[r][v] = _mm512_add_ps(sums[r][v], _mm512_mul_ps(_mm512_mul_ps(scale, x_scale), dot));
                    if constexpr (KIND == Q4_K)
                        sums[r][v] = _mm512_sub_ps(sums[r][v],
                            _mm512_mul_ps(_mm512_load_ps(chunk.minima + g * PANEL + v * 16),
                                          _mm512_set1_ps(as_float(rows.starts[r * rows.starts_step + g]))));
                }
            }
        }
        UNROLL for (int r = 0; r < R; ++r)
            UNROLL for (int v = 0; v < 2; ++v) _mm512_store_ps(y + r * PANEL + v * 16, sums[r][v]);
    }

    template <int R>
    AVX512 static void tile_nf4(const float* x, int64_t step, const uint8_t* codes, const float* scales, float* y) {
        const __m512 levels = _mm512_loadu_ps(LEVELS);
        __m512 chains[R][2][2];
        UNROLL for (int r = 0; r < R; ++r)
            UNROLL for (int v = 0; v < 2; ++v) chains[r][v][0] = chains[r][v][1] = _mm512_setzero_ps();
        for (int j = 0; j < 8; ++j) {
            __m512i w0 = _mm512_loadu_si512(codes + j * 4 * PANEL), w1 = _mm512_loadu_si512(codes + j * 4 * PANEL + 64);
            UNROLL for (int k = 0; k < 8; ++k) {
                // A permutation reads the lowest four bits of its index, so no mask is needed.
                const __m512 level0 = _mm512_permutexvar_ps(w0, levels), level1 = _mm512_permutexvar_ps(w1, levels);
                const float* at = x + j / 4 * 32 + j % 4 * 4 + k / 2 + k % 2 * 16;
                UNROLL for (int r = 0; r < R; ++r) {
                    const __m512 value = _mm512_set1_ps(at[r * step]);
                    chains[r][0][k % 2] = _mm512_add_ps(chains[r][0][k % 2], _mm512_mul_ps(level0, value));
                    chains[r][1][k % 2] = _mm512_add_ps(chains[r][1][k % 2], _mm512_mul_ps(level1, value));
                }
                w0 = _mm512_srli_epi32(w0, 4);
                w1 = _mm512_srli_epi32(w1, 4);
            }
        }
        UNROLL for (int r = 0; r < R; ++r)
            UNROLL for (int v = 0; v < 2; ++v) {
                float* to = y + r * PANEL + v * 16;
                const __m512 sum = _mm512_add_ps(chains[r][v][0], chains[r][v][1]);
                _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to),
                                                  _mm512_mul_ps(_mm512_load_ps(scales + v * 16), sum)));
            }
    }
};
#endif

// ---------------------------------------------------------------- a panel for rows m0 .. m1 of x

template <class Set, int KIND, int R>
INLINE int64_t tiles(const Job& job, int64_t m, int64_t m0, int64_t m1, int64_t column, int groups,
                     const uint8_t* codes, const Chunk& chunk, float* y) {
    for (; m + R <= m1; m += R) {
        float* to = y + (m - m0) * PANEL;
        if constexpr (KIND == NF4) {
            for (int b = 0; b < groups / 2; ++b)
                Set::template tile_nf4<R>(job.plain + m * job.columns + column + b * BLOCK, job.columns,
                                          codes + b * 1024, chunk.scales + b * PANEL, to);
        } else {
            constexpr int WIDTH = 4 * quads(KIND);
            const int64_t groups_of_row = job.columns / GROUP, scales_of_row = job.columns / WIDTH;
            const Rows rows = {job.rounded + m * job.columns + column,
                               job.x_scales + m * groups_of_row + column / GROUP,
                               job.starts + m * scales_of_row + column / WIDTH,
                               job.columns, groups_of_row, scales_of_row};
            Set::template tile<R, KIND>(rows, codes, chunk, groups * GROUP / WIDTH, to);
        }
    }
    return m;
}

template <class Set, int KIND>
INLINE void panel(const Job& job, int64_t m0, int64_t m1, int64_t at) {
    alignas(64) float y[MAX_ROWS * PANEL];
    Chunk chunk;
    std::memset(y, 0, (m1 - m0) * PANEL * sizeof(float));
    const uint8_t* codes = job.codes + at * (job.columns / GROUP) * CODES_OF_32[KIND];
    const uint8_t* scales = job.scales + at * (job.columns / GROUP) * SCALES_OF_256[KIND] / 8;
    for (int64_t column = 0; column < job.columns; column += CHUNK) {
        const int groups = static_cast<int>(std::min<int64_t>(CHUNK, job.columns - column)) / GROUP;
        const uint8_t* bytes = codes;
        if constexpr (KIND == NF4) Set::halves(scales, chunk.scales, groups / 2 * PANEL);
        else bytes = unpack<Set, KIND>(codes, scales, groups, chunk);
        int64_t m = tiles<Set, KIND, Set::ROWS>(job, m0, m0, m1, column, groups, bytes, chunk, y);
        if constexpr (Set::ROWS > 3) m = tiles<Set, KIND, 3>(job, m, m0, m1, column, groups, bytes, chunk, y);
        if constexpr (Set::ROWS > 1) tiles<Set, KIND, 1>(job, m, m0, m1, column, groups, bytes, chunk, y);
        codes += groups * CODES_OF_32[KIND];
        scales += groups * SCALES_OF_256[KIND] / 8;
    }
    const int64_t first = at * PANEL, num = std::min<int64_t>(PANEL, job.outputs - first);
    for (int64_t m = m0; m < m1; ++m)
        for (int64_t r = 0; r < num; ++r) {
            const float value = y[(m - m0) * PANEL + r] + (job.bias ? job.bias[first + r] : 0.0f);
            const int64_t to = m * job.outputs + first + r;
            if (job.y_bfloat16) static_cast<uint16_t*>(job.y)[to] = bfloat16(value);
            else static_cast<float*>(job.y)[to] = value;
        }
}

// What a path consists of: functions compiled for one instruction set, whose inlined parts are above.
struct Path {
    void (*round)(const Job&, int64_t, int64_t);
    void (*panel[5])(const Job&, int64_t, int64_t, int64_t);
};

#define PATH(NAME, SET, TARGET)                                                                           \
    TARGET void round_##NAME(const Job& job, int64_t m, int64_t group) { round_group(job, m, group); }     \
    template <int KIND>                                                                                   \
    TARGET void panel_##NAME(const Job& job, int64_t m0, int64_t m1, int64_t at) {                         \
        panel<SET, KIND>(job, m0, m1, at);                                                                \
    }                                                                                                     \
    const Path NAME = {round_##NAME, {panel_##NAME<INT4>, panel_##NAME<INT8>, panel_##NAME<NF4>,           \
                                      panel_##NAME<Q4_K>, panel_##NAME<Q6_K>}};

PATH(plain, Plain, )
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
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        return 2;
    return avx2 ? 1 : 0;
#else
    return 0;
#endif
}

// `workspace` has M * I * 4 bytes for nf4, otherwise M * (I + I / 4) rounded up to what `workspace_bytes` says.
void riallm_linear(int path, int threads, int64_t kind, int64_t rows, int64_t outputs, int64_t columns, const void* x,
                   int x_bfloat16, const void* codes, const void* scales, const float* bias, void* y, int y_bfloat16,
                   void* workspace) {
    Job job = {};
    job.kind = kind, job.rows = rows, job.outputs = outputs, job.columns = columns;
    job.x = x, job.x_bfloat16 = x_bfloat16, job.y = y, job.y_bfloat16 = y_bfloat16, job.bias = bias;
    job.codes = static_cast<const uint8_t*>(codes), job.scales = static_cast<const uint8_t*>(scales);
    job.plain = static_cast<float*>(workspace);
    job.rounded = static_cast<int8_t*>(workspace);
    job.x_scales = reinterpret_cast<float*>(job.rounded + rows * columns);
    job.starts = reinterpret_cast<int32_t*>(job.x_scales + rows * columns / GROUP);
    const Path& chosen = *PATHS[path];
    const int64_t groups = columns / GROUP, panels = (outputs + PANEL - 1) / PANEL;
    const int64_t most = std::max<int64_t>(6, std::min<int64_t>(MAX_ROWS, CACHED / columns / 6 * 6));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows * groups; ++i) chosen.round(job, i / groups, i % groups);
        for (int64_t m = 0; m < rows; m += most) {
#pragma omp for schedule(dynamic) nowait
            for (int64_t at = 0; at < panels; ++at) chosen.panel[kind](job, m, std::min(rows, m + most), at);
        }
    }
}
}
