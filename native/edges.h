// What overlapping segments do not share: the frames at both ends that feel a segment's padding.
//
// A segment that is cut out sees zeros where its neighbours' samples lie. Of each layer only the
// frames at its two ends feel that, few enough to be computed anew, from those of the layer below
// that feel it (.) and from what all segments share (-):
//
//     layer i - 1     zeros | . . - - - - - - - - - - . | zeros
//                             \|/                   \|/
//     layer i               | .   -   -   -   -   -   . |
//
// Here time runs along memory no more; the outputs of one frame do.
#pragma once
#include "tiles.h"

namespace stapes {
namespace {

struct Edge {
  const Plan& p;
  int slot, segment;
  bool right;

  int count(const Layer& layer) const { return right ? layer.right : layer.left; }
  int begin(const Layer& layer) const { return right ? layer.segment_n - layer.right : 0; }
};

struct Input {
  const float* at;
  int64_t step;  // between channels
};

// Position `at` of a segment's input to layer i: its own, if it feels the padding, or the shared.
Input edge_input(const Edge& e, int i, int at, const float* own) {
  if (i == 0) {
    const int64_t q = int64_t(e.segment) * e.p.hop + at + e.p.x_lead;
    return {e.p.x + (int64_t(e.slot) * e.p.x_phases + q % e.p.x_phases) * e.p.x_row + q / e.p.x_phases,
            0};
  }
  const Layer& below = e.p.layers[i - 1];
  const int from = at - e.begin(below);
  if (from >= 0 && from < e.count(below)) return {own + int64_t(from) * below.edge_lanes, 1};
  const int q = e.segment * below.segment_hop + at + below.lead;
  return {below.y + offset(below, e.slot, 0, q % below.phases, q / below.phases),
          below.phases * below.row};
}

// Frame t of a layer, from EDGE_BLOCK outputs on: [EDGE_BLOCK]. The sums of even and odd channels
// are kept apart, so that they need not wait for each other.
void edge_frame(const Edge& e, int i, int t, int output, const float* own, float* out) {
  constexpr int N = EDGE_BLOCK / V;
  const Layer& layer = e.p.layers[i];
  Vector even[N], odd[N] = {};
  for (int j = 0; j < N; j++) even[j] = load(layer.shift + output + j * V);
  for (int k = 0; k < layer.kernel; k++) {
    const int at = layer.stride * t - layer.pad + k;
    if (at < 0 || at >= layer.segment_in) continue;
    const Input x = edge_input(e, i, at, own);
    const float* w = layer.edge_weights + int64_t(k) * layer.c_in * layer.edge_lanes + output;
    int c = 0;
    for (; c + 2 <= layer.c_in; c += 2, w += 2 * layer.edge_lanes)
      for (int j = 0; j < N; j++) {
        even[j] += x.at[c * x.step] * load(w + j * V);
        odd[j] += x.at[(c + 1) * x.step] * load(w + layer.edge_lanes + j * V);
      }
    if (c < layer.c_in)
      for (int j = 0; j < N; j++) even[j] += x.at[c * x.step] * load(w + j * V);
  }
  for (int j = 0; j < N; j++) store(out + j * V, relu(even[j] + odd[j]));
}

// Adds the frames of the last layer at one end of a segment to its sums: [c].
void add_edge(const Edge& e, const Scratch& s, float* sums) {
  float *own = s.edges, *next = s.edges + e.p.edge_floats;
  for (int i = 0; i < e.p.n_layers; i++) {
    const Layer& layer = e.p.layers[i];
    for (int j = 0; j < e.count(layer); j++)
      for (int output = 0; output < layer.edge_lanes; output += EDGE_BLOCK)
        edge_frame(e, i, e.begin(layer) + j, output, own, next + j * layer.edge_lanes + output);
    float* swap = own;
    own = next;
    next = swap;
  }
  const Layer& top = e.p.layers[e.p.n_layers - 1];
  for (int j = 0; j < e.count(top); j++)
    for (int c = 0; c < top.c_out; c++) sums[c] += own[j * top.edge_lanes + c];
}

// Mean over time of one segment, and where wanted its frames.
void pool_segment(const Plan& p, int slot, int segment, const Stretch& stretch, const Scratch& s) {
  const Layer& top = p.layers[p.n_layers - 1];
  const bool alone = p.hop == 0 || stretch.frames;  // else the same sums whatever the stretch
  const int begin = alone ? 0 : top.left, end = top.segment_n - (alone ? 0 : top.right);
  float* sums = stretch.pooled + int64_t(segment) * top.c_out;
  for (int c = 0; c < top.c_out; c++) {
    const float* frame = top.y + offset(top, slot, c, 0, segment * top.segment_hop);
    double total = 0;
    for (int t = begin; t < end; t++) total += frame[t];
    sums[c] = static_cast<float>(total);
    if (stretch.frames)
      for (int t = begin; t < end; t++) stretch.frames[int64_t(t) * top.c_out + c] = frame[t];
  }
  if (!alone) {
    add_edge({p, slot, segment, false}, s, sums);
    add_edge({p, slot, segment, true}, s, sums);
  }
  for (int c = 0; c < top.c_out; c++) sums[c] /= static_cast<float>(top.segment_n);
}

}  // namespace
}  // namespace stapes
