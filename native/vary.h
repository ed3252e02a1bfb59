// Segments for training: drawn between samples, mixed, filtered, with noise, at a level.
#pragma once
#include <cmath>
#include <cstring>

#include "kernels.h"
#include "vectors.h"

namespace stapes {
namespace {

#if defined(__AVX2__)
// Samples of two vectors, a and b behind it, at these places from 0 to 2V - 1.
inline Vector pick(Vector a, Vector b, Mask places) {
#if STAPES_LANES == 16
  return reinterpret_cast<Vector>(_mm512_permutex2var_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512i>(places), reinterpret_cast<__m512>(b)));
#else
  const auto index = reinterpret_cast<__m256i>(places);  // of which three bits count
  const auto low = _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(a), index);
  const auto high = _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(b), index);
  return reinterpret_cast<Vector>(
      _mm256_blendv_ps(low, high, reinterpret_cast<__m256>(places > V - 1)));
#endif
}
#endif

// x at the places `at`, linearly between samples.
inline Vector between(const float* x, Vector at) {
  const Mask left = __builtin_convertvector(at, Mask);
  const Vector rest = at - __builtin_convertvector(left, Vector);
#if defined(__AVX2__)
  if (at[V - 1] < 2 * V - 1) {  // all lies within two vectors
    const Vector a = load(x), b = load(x + V);
    const Vector low = pick(a, b, left);
    return low + rest * (pick(a, b, left + 1) - low);
  }
#endif
  Vector low, high;
  for (int j = 0; j < V; j++) low[j] = x[left[j]], high[j] = x[left[j] + 1];
  return low + rest * (high - low);
}

// out[i] = the sound at first + rate * i, linearly between samples.
void draw(const float* sound, double first, double rate, int64_t length, float* out) {
  Vector steps;
  for (int j = 0; j < V; j++) steps[j] = static_cast<float>(rate) * j;
  for (int64_t i = 0; i < length; i += V) {
    const double place = first + rate * i;
    const int64_t whole = static_cast<int64_t>(place);
    const Vector drawn = between(sound + whole, steps + static_cast<float>(place - whole));
    if (i + V <= length) store(out + i, drawn);
    else std::memcpy(out + i, &drawn, sizeof(float) * (length - i));
  }
}

// What is filtered at once: vectors, and groups of V taps. A vector that is read for one group is
// that of its neighbour for the next, so few are read.
constexpr int FILTERED = 8, GROUPS = 4;
static_assert(FILTERED * V <= MOST_FILTERED && GROUPS * V <= TAPS_AT_ONCE);

// y[t] = sum over k of taps[k] * x[t + k], up to whole blocks of vectors; whole groups of taps.
void filter(const float* x, const float* taps, int64_t n_taps, int64_t length, float* y) {
  for (int64_t t = 0; t < length; t += FILTERED * V) {
    Vector total[FILTERED] = {};
    for (int64_t k = 0; k < n_taps; k += GROUPS * V)
      for (int64_t i = k; i < k + V; i++) {
#pragma GCC unroll 16
        for (int j = 0; j < FILTERED + GROUPS - 1; j++) {
          const Vector read = load(x + t + i + j * V);
#pragma GCC unroll 16
          for (int g = 0; g < GROUPS; g++)
            if (j >= g && j - g < FILTERED) total[j - g] += taps[i + g * V] * read;
        }
      }
#pragma GCC unroll 16
    for (int j = 0; j < FILTERED; j++) store(y + t + j * V, total[j]);
  }
}

// What brings a segment to an RMS.
inline float scale_to(double rms, double power, float least_rms) {
  return static_cast<float>(rms / std::fmax(std::sqrt(power), double(least_rms)));
}

// One row of a batch; `room` holds vary_room() floats.
void vary(const Variation& v, int64_t row, float* room) {
  const int64_t n = v.length, before = v.n_taps / 2;
  float *mixed = room, *y = mixed + vary_floats(v), *taps = y + vary_floats(v);
  const int64_t partner = v.partners[row];
  const float *x = v.segments + row * n, *z = v.segments + partner * n;
  const float own = scale_to(v.own[row], v.squares[row] / n, v.least_rms);
  const float other = scale_to(v.other[row], v.squares[partner] / n, v.least_rms);
  const float shift = static_cast<float>(-own * v.means[row] - other * v.means[partner]);
  std::memset(mixed, 0, sizeof(float) * before);
  for (int64_t t = 0; t < n; t++) mixed[before + t] = own * x[t] + other * z[t] + shift;
  std::memset(mixed + before + n, 0, sizeof(float) * (vary_floats(v) - before - n));
  std::memset(taps, 0, sizeof(float) * (room + vary_room(v) - taps));
  std::memcpy(taps, v.taps + row * v.n_taps, sizeof(float) * v.n_taps);
  filter(mixed, taps, v.n_taps, n, y);
  // What is mixed has a mean of 0, and filtered still almost: squares about 0 do not cancel.
  const float *noise = v.noises + v.noise_starts[row], level = v.noise_levels[row];
  Vector total{}, square{};
  std::memset(y + n, 0, sizeof(float) * V);
  for (int64_t t = 0; t < n; t += V) {
    Vector added{};
    if (t + V <= n) added = load(noise + t);
    else std::memcpy(&added, noise + t, sizeof(float) * (n - t));
    const Vector heard = load(y + t) + level * added;
    store(y + t, heard);
    total += heard;
    square += heard * heard;
  }
  const double mean = sum(total) / n, power = std::fmax(sum(square) / n - mean * mean, 0.0);
  const float scale = scale_to(v.rms[row], power, v.least_rms);
  const float offset = static_cast<float>(mean);
  for (int64_t t = 0; t < n; t++) v.out[row * n + t] = (y[t] - offset) * scale;
}

}  // namespace
}  // namespace stapes
