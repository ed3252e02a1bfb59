// Vectors of the build's width, and the two products that all the work is made of.
#pragma once
#include <cstdint>

#include "plan.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define STAPES_LANES 16
#elif defined(__AVX__)
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
#elif defined(__AVX__)
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

// out[i][t] = sum over r of weights[r][i] * rows[r][t] for M outputs and n frames (whole grains).
template <int M>
void product(const float* weights, const float* const* rows, int n_rows, float* out,
             int64_t out_row, int n) {
  for (int t = 0; t < n; t += 2 * V) {
    Vector low[M] = {}, high[M] = {};
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
    for (int i = 0; i < M; i++) {
      store(out + i * out_row + t, low[i]);
      store(out + i * out_row + t + V, high[i]);
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

using Product = void (*)(const float*, const float* const*, int, float*, int64_t, int);
using Outer = void (*)(const float* const*, const float* const*, int, float*, int64_t);

// Any number of outputs, in blocks; rows of `out` up to whole blocks are written.
inline void multiply(const float* weights, int block, int n_out, const float* const* rows,
                     int n_rows, float* out, int64_t out_row, int n) {
#if STAPES_LANES == 16 || defined(__aarch64__)
  static constexpr Product table[] = {product<1>, product<2>,  product<3>,  product<4>,
                                      product<5>, product<6>,  product<7>,  product<8>,
                                      product<9>, product<10>, product<11>, product<12>};
#else
  static constexpr Product table[] = {product<1>, product<2>, product<3>, product<4>, product<5>};
#endif
  static_assert(sizeof table / sizeof *table == MAX_BLOCK);
  for (int c = 0; c < n_out; c += block, weights += int64_t(block) * n_rows)
    table[block - 1](weights, rows, n_rows, out + c * out_row, out_row, n);
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

// Adds the lanes of the sums to out: [n_right][n_left] and clears them.
inline void flush_outer(float* sums, int n_left, int n_right, double* out) {
  const int64_t padded = round_up(n_left, OUTER_LEFT);
  for (int j = 0; j < n_right; j++)
    for (int i = 0; i < n_left; i++) out[j * n_left + i] += sum(load(sums + (j * padded + i) * V));
  for (int64_t i = 0; i < n_right * padded; i++) store(sums + i * V, Vector{});
}

}  // namespace
}  // namespace stapes
