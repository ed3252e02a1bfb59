// Vectors of the build's width, and the products that all the work is made of.
#pragma once
#include <cstdint>

#include "plan.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define STAPES_LANES 16
#elif defined(__AVX2__)
#define STAPES_LANES 8
#else
#define STAPES_LANES 4
#endif

namespace stapes {
namespace {  // every build has its own copy of everything here

constexpr int V = STAPES_LANES;
typedef float Vector __attribute__((vector_size(4 * STAPES_LANES), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(4 * STAPES_LANES), aligned(4), may_alias));

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MAX_BLOCK = 12, OUTER_LEFT = 5, OUTER_RIGHT = 5;  // 32 registers
#else
constexpr int MAX_BLOCK = 5, OUTER_LEFT = 2, OUTER_RIGHT = 5;  // 16 registers
#endif

inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline Vector spread(float value) { return value - Vector{}; }
// The larger of 0 and v; not-a-number stays, so that broken training is seen.
inline Vector relu(Vector v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_max_ps(_mm512_setzero_ps(), reinterpret_cast<__m512>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<Vector>(_mm256_max_ps(_mm256_setzero_ps(), reinterpret_cast<__m256>(v)));
#else
  return v < 0.0f ? Vector{} : v;
#endif
}
inline Vector where_positive(Vector condition, Vector v) {
  return reinterpret_cast<Vector>((condition > 0.0f) & reinterpret_cast<Mask>(v));
}

inline double sum(Vector v) {
  float lanes[V];
  store(lanes, v);
  for (int half = V / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

// Frames 0, 2, 4, ... of two vectors, and frames 1, 3, 5, ...
inline Vector evens(Vector a, Vector b) {
#if STAPES_LANES == 16
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif defined(__AVX2__)  // the compiler takes four instructions for these two
  const auto halves = _mm256_shuffle_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), 0x88);
  return reinterpret_cast<Vector>(_mm256_permute4x64_epi64(_mm256_castps_si256(halves), 0xd8));
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}
inline Vector odds(Vector a, Vector b) {
#if STAPES_LANES == 16
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
  const auto halves = _mm256_shuffle_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), 0xdd);
  return reinterpret_cast<Vector>(_mm256_permute4x64_epi64(_mm256_castps_si256(halves), 0xd8));
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}
// Frames of a and b in turn: what evens and odds would take apart again.
inline void store_in_turn(float* p, Vector a, Vector b) {
#if STAPES_LANES == 16
  store(p, __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  store(p + V, __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                       15, 31));
#elif defined(__AVX2__)
  const auto x = reinterpret_cast<__m256>(a), y = reinterpret_cast<__m256>(b);
  const auto low = _mm256_unpacklo_ps(x, y), high = _mm256_unpackhi_ps(x, y);
  store(p, reinterpret_cast<Vector>(_mm256_permute2f128_ps(low, high, 0x20)));
  store(p + V, reinterpret_cast<Vector>(_mm256_permute2f128_ps(low, high, 0x31)));
#else
  store(p, __builtin_shufflevector(a, b, 0, 4, 1, 5));
  store(p + V, __builtin_shufflevector(a, b, 2, 6, 3, 7));
#endif
}
inline void store_half(float* p, Vector v, int half) {
  __builtin_memcpy(p, reinterpret_cast<const char*>(&v) + half * (sizeof v / 2), sizeof v / 2);
}

// Where the frames of a row go: frame t, at q = t + lead, to phase q % phases, place q / phases,
// without dividing, for phases are a power of two.
struct Phases {
  int phases, lead;
  int64_t row;
  int64_t place(int t) const {
    const int q = t + lead;
    return (q & (phases - 1)) * row + (q >> __builtin_ctz(phases));
  }
};

// Puts frames t, ..., t + 2V - 1, t a multiple of the phases, into P phases; into any number if P
// is 0.
template <int P>
class Putter {
 public:
  explicit Putter(const Phases& phases) : phases_(phases) {
    for (int j = 0; j < P; j++) at_[j] = phases.place(j);
  }
  void put(float* out, int t, Vector low, Vector high) const {
    if (P == 1) {
      store(out + at_[0] + t, low);
      store(out + at_[0] + t + V, high);
    } else if (P == 2) {
      store(out + at_[0] + t / 2, evens(low, high));
      store(out + at_[1 % N] + t / 2, odds(low, high));
    } else if (P == 4) {
      out += t / 4;
      const Vector even = evens(low, high), odd = odds(low, high);
      const Vector first = evens(even, odd), second = odds(even, odd);
      store_half(out + at_[0], first, 0);
      store_half(out + at_[1 % N], first, 1);
      store_half(out + at_[2 % N], second, 0);
      store_half(out + at_[3 % N], second, 1);
    } else {
      for (int j = 0; j < V; j++) out[phases_.place(t + j)] = low[j];
      for (int j = 0; j < V; j++) out[phases_.place(t + V + j)] = high[j];
    }
  }

 private:
  static constexpr int N = P > 0 ? P : 1;
  const Phases phases_;
  int64_t at_[N];
};

// What becomes of a product: rows of frames, one every `channel` floats; as they are, or where
// there is a bias max(0, row + bias).
struct Destination {
  float* out;
  int64_t channel;
  Phases phases;
  const float* bias;
};

// out[i][t] = sum over r of weights[r][i] * rows[r][t] for M outputs, of which n_out are stored,
// and n frames (whole grains).
template <int M, int P>
void product(const float* weights, const float* const* rows, int n_rows, const Destination& to,
             int n_out, int n) {
  const Putter<P> putter(to.phases);
  float* const out = to.out;
  const float* const bias = to.bias;
  const int64_t channel = to.channel;
  for (int t = 0; t < n; t += 2 * V) {
    Vector low[M], high[M];
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) low[i] = high[i] = spread(bias ? bias[i] : 0.0f);
#pragma GCC unroll 2
    for (int r = 0; r < n_rows; r++) {
      const Vector x0 = load(rows[r] + t), x1 = load(rows[r] + t + V);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) {
        const float w = weights[r * M + i];
        low[i] += w * x0;
        high[i] += w * x1;
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; i++)
      if (i < n_out) {
        if (bias) low[i] = relu(low[i]), high[i] = relu(high[i]);
        putter.put(out + i * channel, t, low[i], high[i]);
      }
  }
}

// sums[j][i] += left[i][t] * right[j][t], lane by lane, over n frames (whole grains).
template <int N>
void outer(const float* const* left, const float* const* right, int n, float* sums,
           int64_t sums_row) {
  constexpr int M = OUTER_LEFT;
  Vector acc[N][M];
#pragma GCC unroll 16
  for (int j = 0; j < N; j++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) acc[j][i] = load(sums + j * sums_row + i * V);
  for (int t = 0; t < n; t += V) {
    Vector x[M];
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) x[i] = load(left[i] + t);
#pragma GCC unroll 16
    for (int j = 0; j < N; j++) {
      const Vector z = load(right[j] + t);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) acc[j][i] += x[i] * z;
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < N; j++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) store(sums + j * sums_row + i * V, acc[j][i]);
}

using Product = void (*)(const float*, const float* const*, int, const Destination&, int, int);
using Outer = void (*)(const float* const*, const float* const*, int, float*, int64_t);

// The product for a block of outputs and their phases.
template <int M, int P>
Product find(int block) {
  if constexpr (M > 1)
    if (block < M) return find<M - 1, P>(block);
  return product<M, P>;
}
inline Product find(int block, int phases) {
  if (phases == 1) return find<MAX_BLOCK, 1>(block);
  if (phases == 2) return find<MAX_BLOCK, 2>(block);
  if (phases == 4) return find<MAX_BLOCK, 4>(block);
  return find<MAX_BLOCK, 0>(block);
}

// Any number of outputs, in blocks.
inline void multiply(const float* weights, int block, int n_out, const float* const* rows,
                     int n_rows, Destination to, int n) {
  const Product product = find(block, to.phases.phases);
  for (int c = 0; c < n_out; c += block, weights += int64_t(block) * n_rows) {
    product(weights, rows, n_rows, to, n_out - c, n);
    to.out += block * to.channel;
    if (to.bias) to.bias += block;
  }
}

// Any number of rows on both sides; sums: [n_right][n_left up to whole blocks][V].
inline void add_outer(const float* const* left, int n_left, const float* const* right, int n_right,
                      int n, float* sums) {
  static constexpr Outer table[] = {outer<1>, outer<2>, outer<3>, outer<4>, outer<5>};
  static_assert(sizeof table / sizeof *table == OUTER_RIGHT);
  const int64_t sums_row = round_up(n_left, OUTER_LEFT) * V;
  for (int i = 0; i < n_left; i += OUTER_LEFT) {
    const float* block[OUTER_LEFT];  // the last block repeats the last row; its sums are not read
    for (int m = 0; m < OUTER_LEFT; m++) block[m] = left[i + m < n_left ? i + m : n_left - 1];
    for (int j = 0; j < n_right; j += OUTER_RIGHT) {
      const int count = n_right - j < OUTER_RIGHT ? n_right - j : OUTER_RIGHT;
      table[count - 1](block, right + j, n, sums + j * sums_row + i * V, sums_row);
    }
  }
}

// ---- the same with the rows on the left along the lanes, for layers that fill them ----

constexpr int ACROSS = OUTER_LEFT * OUTER_RIGHT * 2 / 5;  // rows on the right that are worked on at once

// Rows [n_left][n] to frames [n][row], zeros behind.
inline void turn(const float* const* rows, int n_left, int n, float* turned, int64_t row) {
  for (int64_t c = n_left; c < row; c++)
    for (int t = 0; t < n; t++) turned[t * row + c] = 0.0f;
  for (int c = 0; c < n_left; c++)
    for (int t = 0; t < n; t++) turned[t * row + c] = rows[c][t];
}

// sums[j][i] += left[t][i] * right[j][t] for N rows and M vectors, over n frames.
template <int N, int M>
void across(const float* left, int64_t row, const float* const* right, int n, float* sums) {
  Vector acc[N][M];
#pragma GCC unroll 16
  for (int j = 0; j < N; j++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) acc[j][i] = load(sums + j * row + i * V);
  for (int t = 0; t < n; t++) {
    Vector x[M];
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) x[i] = load(left + t * row + i * V);
#pragma GCC unroll 16
    for (int j = 0; j < N; j++)
#pragma GCC unroll 16
      for (int i = 0; i < M; i++) acc[j][i] += right[j][t] * x[i];
  }
#pragma GCC unroll 16
  for (int j = 0; j < N; j++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) store(sums + j * row + i * V, acc[j][i]);
}

// Any number of rows on both sides; sums: [n_right][n_left up to whole vectors].
inline void add_across(const float* const* left, int n_left, const float* const* right,
                       int n_right, int n, float* turned, float* sums) {
  const int64_t row = round_up(n_left, V);
  turn(left, n_left, n, turned, row);
  for (int i = 0; i < row; i += 2 * V) {
    const bool two = i + V < row;
    int j = 0;
    for (; j + ACROSS <= n_right; j += ACROSS)
      (two ? across<ACROSS, 2> : across<ACROSS, 1>)(turned + i, row, right + j, n,
                                                    sums + j * row + i);
    for (; j < n_right; j++)
      (two ? across<1, 2> : across<1, 1>)(turned + i, row, right + j, n, sums + j * row + i);
  }
}

// Adds the sums to out: [n_right][n_left] and clears them.
inline void flush_across(float* sums, int n_left, int n_right, double* out) {
  const int64_t row = round_up(n_left, V);
  for (int j = 0; j < n_right; j++)
    for (int i = 0; i < n_left; i++) out[j * n_left + i] += sums[j * row + i];
  __builtin_memset(sums, 0, sizeof(float) * row * n_right);
}

// Adds the lanes of the sums to out: [n_right][n_left] and clears them.
inline void flush_outer(float* sums, int n_left, int n_right, double* out) {
  const int64_t padded = round_up(n_left, OUTER_LEFT);
  for (int j = 0; j < n_right; j++)
    for (int i = 0; i < n_left; i++) out[j * n_left + i] += sum(load(sums + (j * padded + i) * V));
  for (int64_t i = 0; i < n_right * padded; i++) store(sums + i * V, Vector{});
}

}  // namespace
}  // namespace stapes
