// The work on one unit of the batch, as a table: one build for every instruction set.
#pragma once
#include "plan.h"

namespace stapes {

// Scratch memory of one thread.
struct Scratch {
  float *activations, *first, *out, *dy, *turned, *sums, *edges;
  const float **left, **right;
};

// Overlapping segments of one waveform, one every hop, to which the same gain is applied.
struct Stretch {
  const float* x;
  int n_segments;
  float offset, scale;  // the network hears scale * (x - offset)
  float* pooled;        // [n_segments][c]
  float* frames;        // of the last layer [n][c], if wanted, and there is one segment
};

// What makes of segments a batch: each mixed with a partner, filtered, with noise, at a level.
struct Variation {
  int64_t length, n_taps;  // n_taps: odd
  const float* segments;          // [batch][length]
  const double *means, *squares;  // [batch] of these: mean, and sum of squares about it
  const int64_t* partners;        // [batch]
  const float *own, *other;  // [batch]: mixed = own * segment + other * partner, of mean 0 and RMS 1
  const float* taps;                 // [batch][n_taps], that of the latest sample last
  const float* noises;
  const int64_t* noise_starts;  // [batch]: each noise is a piece of the noises
  const float* noise_levels;    // [batch]
  const float* rms;             // [batch], of the results, whose mean is 0
  float least_rms;              // below it there is silence, which is amplified no more than this
  float* out;                   // [batch][length]
};

// Floats that a filter may write at once, and taps that it takes at once.
constexpr int64_t MOST_FILTERED = 128, TAPS_AT_ONCE = 64;

// Of a row that is filtered, with what may be read and written behind its end.
static inline int64_t vary_floats(const Variation& v) {
  return round_up(v.length + v.n_taps + MOST_FILTERED + TAPS_AT_ONCE, 64);
}

// Two such rows and the taps.
static inline int64_t vary_room(const Variation& v) {
  return 2 * vary_floats(v) + round_up(v.n_taps, TAPS_AT_ONCE);
}

// Partial sums that a unit leaves for the serial step after each pass, all float64:
//   statistics: [c_out][3] shift, sum of y - shift, sum of its square
//   gradients : [c][2] sum of g, sum of g * normalised   (of the layer below the one worked on)
//   at weight_sums: [c_in][kernel][c_out] sum of dy * input rows
//   at first_sums : [kernel][2 * c + 1] sums of g, y and 1 times the waveform's rows
struct Kernels {
  const char* name;
  int max_block;   // outputs of one product
  int outer_left;  // rows are padded to a multiple of this in `sums`
  int lanes;
  void (*pack)(const Plan&, int slot, const float* x, float offset, float scale);
  void (*first_statistics)(const Plan&, int unit, const Scratch&);
  void (*forward)(const Plan&, int layer, int unit, const Scratch&);
  void (*pool)(const Plan&, int unit, const Scratch&, float* pooled);
  void (*top_gradient)(const Plan&, int unit, const Scratch&, const float* d_pooled);
  void (*backward)(const Plan&, int layer, int unit, const Scratch&);
  void (*infer)(const Plan&, int slot, const Stretch&, const Scratch&);
  // Mean, sum of squares about it and highest magnitude of each block of samples.
  void (*describe)(const float* x, int64_t n_blocks, int64_t length, double* means,
                   double* squares, float* peaks);
  void (*draw)(const float* sound, double first, double rate, int64_t length, float* out);
  void (*vary)(const Variation&, int64_t row, float* room);
};

extern const Kernels kernels_baseline, kernels_avx2, kernels_avx512;

// The kernels for this processor; STAPES_KERNELS=baseline|avx2|avx512 in the environment may ask
// for a simpler build (to test it).
const Kernels& choose_kernels();

}  // namespace stapes
