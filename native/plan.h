// What one network at one batch size needs in memory. Plain data: every kernel build reads it.
//
// Convolution i takes [c_in, n_in] to [c_out, n]; output frame t sees inputs stride*t + k - pad.
// Time runs along the vector lanes, so that no lane is lost whatever the number of filters.
// The frames of an output are stored as its reader, the next convolution, steps over them: with
// `phases` = the reader's stride and `lead` = its padding, frame t lies at q = t + lead, in phase
// q % phases, at place q / phases:
//
//     frames            t :   0  1  2  3  4  5  6  7  8        (phases 2, lead 1)
//     phase 0 (q even)    :  [.] 1  3  5  7                    q = 0, 2, 4, ...   . = padding
//     phase 1 (q odd)     :   0  2  4  6  8                    q = 1, 3, 5, ...
//
//     one example         :  channel 0: phase 0 |row floats|, phase 1 |row floats|; channel 1: ...
//
// Tap k of the reader's frames u, u+1, ... is then one contiguous row: phase k % phases, from place
// u + k / phases on. Every convolution, forward and backward, becomes
//
//     output rows = matrix of weights x input rows      and      d weights = rows x rows^T
//
// over tiles that stay in a cache. In training, what is stored is the convolution's
// output y, before normalisation; normalisation and ReLU are applied as a tile is read, because the
// batch statistics are known only after the whole batch has passed. In inference normalisation is
// folded into the weights, and activations are stored. The first layer, half of all frames, is never
// stored: it is computed anew from the waveform x, kept in phases of both strides.
#pragma once
#include <cstdint>

namespace stapes {

constexpr int GRAIN = 32;  // frames the kernels work on at once: two of the longest vectors
constexpr int MARGIN = 16;  // floats of slack before and after a row of frames
constexpr int MAX_PHASES = 16;
constexpr int MAX_LAYERS = 64;
constexpr int EDGE_BLOCK = 16;  // outputs of an edge's frame that are worked on at once

struct Layer {
  int c_in, c_out, kernel, stride, pad, n_in, n;
  int64_t weights_at, channels_at;  // of its weights among all, of its channels among all
  int phases, lead;  // how the output is stored: the reader's stride and padding; 1, 0 at the end
  int halo;          // places that the reader looks ahead
  int places;        // places of a phase that hold frames
  int tile;          // places that the reader takes at once
  int64_t reach;     // places of a phase that are ever read
  int64_t row;       // floats of one phase
  int64_t tile_row;  // the same in a tile
  float* y;          // [batch][c_out][phases][row]; null in the first layer of several
  float* forward_weights;   // [block][c_in][kernel][in block], blocks of `forward_block` outputs
  float* backward_weights;  // for each phase of the input: [block][taps of it][c_out][in block]
  int forward_block, backward_block;
  float *scale, *shift;       // [c_out]: activation = max(0, scale * y + shift); shift: the bias
  float *rstd, *mean_rstd;    // [c_out]: normalised = rstd * y - mean_rstd
  float *dy_g, *dy_y, *dy_1;  // [c_out]: gradient of y = dy_g * g + dy_y * y + dy_1
  // Of the segments of a stretch: frames in and out, frames out between the starts of two, and how
  // many of the first and of the last frames out feel the segment's padding; see edges.h.
  int segment_in, segment_n, segment_hop, left, right;
  float* edge_weights;  // [kernel][c_in][edge_lanes]
  int edge_lanes;       // c_out up to whole edge blocks
  int64_t sums;         // floats in which the products rows x rows^T are added up
};

struct Plan {
  int batch, n_layers, n_units;
  int64_t n_weights, n_channels;  // of all layers
  int length;  // samples of an example; in inference, of a stretch of segments `hop` apart
  int hop;
  bool training;
  Layer* layers;
  float* x;            // [batch][stride_0 * phases_0][x_row], the padded waveforms in phases
  int x_phases, x_lead, x_ahead;  // x_ahead: samples behind the waveform that are read
  int64_t x_row;
  float* gradients[2];  // of the activations of odd and even layers, stored as y is
  double* partial;      // [n_units][partial_size]: sums over a unit, a fixed part of the batch
  int64_t partial_size;
  // Where things lie in a unit's partial sums (in doubles).
  int64_t weight_sums, first_sums;
  int64_t max_rows;        // input rows of the largest product
  int64_t tile_floats;  // of the largest tile, in floats
  int64_t row_sums;     // floats of the largest sums
  int64_t turned_floats;  // of the largest tile of a gradient, frame after frame
  int64_t edge_floats;  // of the largest edge
};

// A unit's first and one past its last example. Units do not depend on the number of threads, nor
// does the order in which their sums are added: so neither does any result.
static inline int unit_begin(const Plan& p, int unit) {
  return static_cast<int>(int64_t(p.batch) * unit / p.n_units);
}

static inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
static inline int ceil_div(int a, int b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// Whether so many rows fill the lanes well enough to lie along them.
static inline bool goes_across(int n_rows, int lanes) {
  return 4 * n_rows >= 3 * round_up(n_rows, lanes);
}

}  // namespace stapes
