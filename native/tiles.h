// Tiles: a few hundred frames of every channel of a layer, read from where they are stored.
#pragma once
#include <cstring>

#include "kernels.h"
#include "vectors.h"

namespace stapes {
namespace {  // every build has its own copy of everything here

int clamp(int value, int low, int high) {
  return value < low ? low : value > high ? high : value;
}

struct Range {
  int begin, end;
};

// Places of a phase that hold frames first, ..., end - 1.
Range places_of(const Layer& layer, int phase, int first, int end) {
  return {ceil_div(first + layer.lead - phase, layer.phases),
          ceil_div(end + layer.lead - phase, layer.phases)};
}

// Which of the places first, ..., first + count - 1 of a phase hold frames, counted from first.
Range valid(const Layer& layer, int phase, int first, int count) {
  const Range all = places_of(layer, phase, 0, layer.n);
  const int begin = clamp(all.begin - first, 0, count);
  return {begin, clamp(all.end - first, begin, count)};
}

void keep_valid(float* row, Range range, int count) {
  std::memset(row, 0, sizeof(float) * range.begin);
  std::memset(row + range.end, 0, sizeof(float) * (count - range.end));
}

// Clears what are no frames in a whole tile; only the first and the last tiles hold any.
void keep_valid(const Layer& layer, int first, int count, float* tile) {
  for (int phase = 0; phase < layer.phases; phase++) {
    const Range range = valid(layer, phase, first, count);
    if (range.begin == 0 && range.end == count) continue;
    for (int c = 0; c < layer.c_out; c++)
      keep_valid(tile + (c * layer.phases + phase) * layer.tile_row, range, count);
  }
}

// ---- rows: where the taps of a convolution lie in its input ----

// `n` taps from the q-th of a row of frames in phases on.
const float** taps(const float* at, int phases, int64_t row, int q, int n, const float** rows) {
  for (; n > 0; n--, q++) *rows++ = at + q % phases * row + q / phases;
  return rows;
}

void input_rows(const Layer& reader, const float* tile, int64_t tile_row, const float** rows) {
  for (int c = 0; c < reader.c_in; c++, tile += reader.stride * tile_row)
    rows = taps(tile, reader.stride, tile_row, 0, reader.kernel, rows);
}

// The taps of the first layer for the frames of one phase of its output.
void waveform_rows(const Plan& p, int b, int phase, int first, const float** rows) {
  const Layer& layer = p.layers[0];
  const float* x = p.x + int64_t(b) * p.x_phases * p.x_row + first;
  taps(x, p.x_phases, p.x_row, layer.stride * phase, layer.kernel, rows);
}

// ---- reading a tile of a layer's output ----
//
// A tile's rows are too short for the processor to foresee, and lie in memory, not in a cache: while
// one is worked on, the next is asked for.

struct Tile {
  const float* y;
  int64_t y_row;
  float* activations;
  int64_t row;
};

int64_t offset(const Layer& layer, int b, int channel, int phase, int first) {
  return ((int64_t(b) * layer.c_out + channel) * layer.phases + phase) * layer.row + first;
}

// The first layer's output, computed anew, as the second reads it; zero where there is no frame.
// Before normalisation, or with a bias activations.
void first_tile(const Plan& p, int b, int first, int count, const float* bias, const Scratch& s) {
  const Layer& layer = p.layers[0];
  const int64_t channel_row = layer.phases * layer.tile_row;
  for (int phase = 0; phase < layer.phases; phase++) {
    waveform_rows(p, b, phase, first, s.right);
    multiply(layer.forward_weights, layer.forward_block, layer.c_out, s.right, layer.kernel,
             {s.first + phase * layer.tile_row, channel_row, {1, 0, 0}, bias},
             static_cast<int>(round_up(count, GRAIN)));
  }
  keep_valid(layer, first, count, s.first);
}

// Where a layer's frames from `first` on, a multiple of the grain, are stored.
Destination stored(const Layer& layer, int b, int first, const float* bias) {
  return {layer.y + offset(layer, b, 0, 0, first / layer.phases), layer.phases * layer.row,
          {layer.phases, layer.lead, layer.row}, bias};
}

// Activations of `count` places (a multiple of the margin) of every channel and phase.
Tile read_tile(const Plan& p, int i, int b, int first, int count, const Scratch& s) {
  const Layer& layer = p.layers[i];
  Tile tile{s.first, layer.tile_row, s.activations, layer.tile_row};
  if (i == 0) {
    first_tile(p, b, first, count, nullptr, s);
  } else {
    tile.y = layer.y + offset(layer, b, 0, 0, first);
    tile.y_row = layer.row;
  }
  for (int c = 0; c < layer.c_out; c++) {
    const Vector scale = spread(layer.scale[c]), shift = spread(layer.shift[c]);
    for (int phase = 0; phase < layer.phases; phase++) {
      const float* y = tile.y + (c * layer.phases + phase) * tile.y_row;
      float* a = tile.activations + (c * layer.phases + phase) * tile.row;
      for (int u = 0; u < count; u += V) {
        __builtin_prefetch(y + tile.y_row + u);
        store(a + u, relu(load(y + u) * scale + shift));
      }
    }
  }
  keep_valid(layer, first, count, tile.activations);
  return tile;
}

// ---- from phases: frames[phases * u + phase] = y[phase][u] ----

struct Affine {
  float g, y, one;
};

// Frames of dy from the phases of g and y.
void from_phases(const float* __restrict g, const float* __restrict y, int phases, int64_t row,
                 int places, Affine by, float* __restrict frames) {
  const auto dy = [&](int64_t at) {
    __builtin_prefetch(g + at + phases * row);
    __builtin_prefetch(y + at + phases * row);
    return by.g * load(g + at) + (by.y * load(y + at) + by.one);
  };
  int u = 0;
  if (phases == 1)
    for (; u + V <= places; u += V) store(frames + u, dy(u));
  if (phases == 2)
    for (; u + V <= places; u += V) store_in_turn(frames + 2 * u, dy(u), dy(row + u));
  for (; u < places; u++)
    for (int phase = 0; phase < phases; phase++)
      frames[phases * u + phase] =
          by.g * g[phase * row + u] + (by.y * y[phase * row + u] + by.one);
}

}  // namespace
}  // namespace stapes
