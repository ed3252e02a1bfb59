// How large everything is, and where it lies in one allocation.
#include "layout.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stapes {
namespace {

constexpr int N_UNITS = 16;        // parts of a batch: enough to share out, few to add up
// Activations of a tile, and places of it at most: in inference most of a first-level cache, in
// training, which has to read what lies in memory, rows long enough for the processor to foresee.
constexpr int TILE_FLOATS[] = {6144, 24576}, LONGEST_TILE[] = {8 * GRAIN, 32 * GRAIN};
constexpr int64_t APART = 272;     // floats by which rows are apart, but for multiples of 2 kB
constexpr size_t HUGE_PAGE = 2 << 20;

// The largest block that divides n outputs into as few blocks as the registers allow.
int even_blocks(int n, int largest) { return ceil_div(n, ceil_div(n, largest)); }

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

void check(const Shape& shape) {
  const size_t n = shape.channels.size();
  int64_t step = 1;
  require(shape.batch >= 1 && shape.length >= 1, "batch and length must be at least 1");
  require(n >= 1 && n <= MAX_LAYERS, "the number of layers must be in 1..64");
  require(shape.kernels.size() == n && shape.strides.size() == n,
          "channels, kernels and strides must have one number a layer");
  for (size_t i = 0; i < n; i++) {
    const int s = shape.strides[i];
    require(shape.channels[i] >= 1 && shape.channels[i] <= 1024, "channels must be in 1..1024");
    require(shape.kernels[i] >= 1 && shape.kernels[i] <= 1024, "kernels must be in 1..1024");
    require(s >= 1 && s <= MAX_PHASES && (s & (s - 1)) == 0, "strides must be 1, 2, 4, 8 or 16");
    step = std::min<int64_t>(step * s, INT32_MAX);
  }
  require(shape.n_segments >= 1 && shape.hop >= 0, "n_segments must be at least 1, hop at least 0");
  require(shape.n_segments == 1 || shape.hop % step == 0, "hop must be a multiple of all strides");
  require(shape.length + int64_t(shape.hop) * shape.n_segments <= INT32_MAX / 4, "too long");
}

// The convolution: TensorFlow's "same" padding of a segment, and the blocks its outputs come in.
void set_convolution(Layer& a, const Layer* below, const Shape& shape, int max_block) {
  a.c_in = below ? below->c_out : 1;
  a.segment_in = below ? below->segment_n : shape.length;
  a.segment_n = ceil_div(a.segment_in, a.stride);
  a.segment_hop = (below ? below->segment_hop : shape.hop) / a.stride;
  const int64_t seen = int64_t(a.segment_n - 1) * a.stride + a.kernel;
  a.pad = static_cast<int>(std::max<int64_t>(seen - a.segment_in, 0) / 2);
  a.forward_block = even_blocks(a.c_out, max_block);
  a.backward_block = even_blocks(a.c_in, max_block);
  a.edge_lanes = static_cast<int>(round_up(a.c_out, EDGE_BLOCK));
}

// Frames that see the padding, or frames below that do. The second layer's edge reads frames of the
// first that are not stored, so the first's edge is as wide as that.
void set_edges(std::vector<Layer>& layers) {
  for (size_t i = 0; i < layers.size(); i++) {
    Layer& a = layers[i];
    const int left = i ? layers[i - 1].left : 0, right = i ? layers[i - 1].right : 0;
    a.left = std::min(ceil_div(left + a.pad, a.stride), a.segment_n);
    const int first = std::max(a.segment_in - right + a.pad - a.kernel + 1, 0);
    a.right = a.segment_n - std::min(ceil_div(first, a.stride), a.segment_n);
    if (i != 1) continue;
    const int read_left = (a.left - 1) * a.stride - a.pad + a.kernel;
    const int read_right = a.segment_in - ((a.segment_n - a.right) * a.stride - a.pad);
    if (a.left) layers[0].left = std::clamp(read_left, layers[0].left, a.segment_in);
    if (a.right) layers[0].right = std::clamp(read_right, layers[0].right, a.segment_in);
  }
}

// How the output is stored for its reader (null after the last layer).
void set_storage(Layer& a, const Layer* reader, bool training) {
  a.halo = reader ? (reader->kernel - 1) / reader->stride : 0;
  const int places = TILE_FLOATS[training] / (a.c_out * a.phases) / GRAIN * GRAIN;
  a.tile = std::clamp(places, 2 * GRAIN, LONGEST_TILE[training]);
  const int64_t ahead = round_up(a.halo, MARGIN);
  const int64_t written = round_up(a.n, GRAIN) / a.phases + ceil_div(a.lead, a.phases);
  a.reach = round_up(std::max<int64_t>(written, reader ? reader->n : 0), GRAIN) + ahead;
  a.row = a.reach + MARGIN;
  // Tiles of rows a multiple of 4 kB apart would share too few lines of a first-level cache.
  if (a.row > APART) a.row = round_up(a.row - APART, 512) + APART;
  a.tile_row = a.tile + ahead + GRAIN + MARGIN;
}

// Floats of the largest tile that holds a layer's output, the next one's or a gradient of either.
int64_t tile_floats(const Layer& a, const Layer* reader, int max_block) {
  const int64_t own = (a.c_out + max_block) * a.phases * a.tile_row;
  if (!reader) return own;
  const int64_t next_row = reader->lead + a.tile_row + round_up(a.halo, MARGIN) + 2 * MARGIN;
  return std::max(own, (reader->c_out + max_block) * next_row);
}

void set_waveform(Plan& p, int length) {
  const Layer& first = p.layers[0];
  p.x_phases = first.stride * first.phases;
  p.x_lead = first.pad + first.stride * first.lead;
  p.x_ahead = first.kernel + first.stride;
  const int ahead = (first.stride * (first.phases - 1) + first.kernel - 1) / p.x_phases;
  const int64_t held = (p.x_lead + length + p.x_ahead) / p.x_phases + 1;
  p.x_row = round_up(std::max<int64_t>(first.reach + GRAIN + ahead, held) + MARGIN, MARGIN);
}

void set_sums(Plan& p, const Kernels& kernels) {
  int64_t outer = 0;
  for (int i = 0; i < p.n_layers; i++) {
    Layer& a = p.layers[i];
    const int64_t taps = int64_t(a.c_in) * a.kernel;
    a.sums = taps * (goes_across(a.c_out, kernels.lanes)
                         ? round_up(a.c_out, kernels.lanes)
                         : round_up(a.c_out, kernels.outer_left) * kernels.lanes);
    p.max_rows = std::max({p.max_rows, taps, int64_t(a.c_out) * a.kernel, 2 * a.c_out + int64_t(1)});
    p.row_sums = std::max(p.row_sums, a.sums);
    if (i) p.turned_floats = std::max(p.turned_floats, p.layers[i - 1].tile * round_up(a.c_out, MARGIN));
    p.weight_sums = std::max<int64_t>(p.weight_sums, 3 * a.c_out);
    outer = std::max(outer, taps * a.c_out);
  }
  const Layer& first = p.layers[0];
  const int64_t n_first = 2 * first.c_out + 1;
  // The second layer's backward pass adds up the first layer's products too.
  p.row_sums += round_up(n_first, kernels.outer_left) * first.kernel * kernels.lanes;
  p.first_sums = p.weight_sums + outer;
  p.partial_size = round_up(p.first_sums + n_first * first.kernel, 8);
}

// Points everything into memory; `cut` without memory only measures.
void place(Plan& p, Cutter& cut, int max_block) {
  int64_t gradients[2] = {0, 0};
  for (int i = 0; i < p.n_layers; i++) {
    Layer& a = p.layers[i];
    const int64_t size = int64_t(p.batch) * a.c_out * a.phases * a.row + MARGIN;
    if (i > 0 || !p.training) a.y = cut.take<float>(i > 0 || p.n_layers == 1 ? size : 0);
    if (i > 0 && p.training) gradients[i & 1] = std::max(gradients[i & 1], size);
    a.forward_weights = cut.take<float>(int64_t(a.c_out + max_block) * a.c_in * a.kernel);
    if (p.training)
      a.backward_weights = cut.take<float>(int64_t(a.c_in + max_block) * a.kernel * a.c_out);
    else
      a.edge_weights = cut.take<float>(int64_t(a.kernel) * a.c_in * a.edge_lanes);
    for (float** v : {&a.scale, &a.shift, &a.rstd, &a.mean_rstd, &a.dy_g, &a.dy_y, &a.dy_1})
      *v = cut.take<float>(a.edge_lanes + max_block);  // whole blocks are read
  }
  p.gradients[0] = cut.take<float>(gradients[0]);
  p.gradients[1] = cut.take<float>(gradients[1]);
  p.x = cut.take<float>(int64_t(p.batch) * p.x_phases * p.x_row);
  p.partial = cut.take<double>(p.n_units * p.partial_size);
}

Scratch cut_scratch(const Plan& p, Cutter& cut) {
  Scratch s{};
  s.first = cut.take<float>(p.tile_floats);
  s.edges = cut.take<float>(2 * p.edge_floats);
  s.right = cut.take<const float*>(p.max_rows);
  if (!p.training) return s;
  for (float** tile : {&s.activations, &s.out, &s.dy}) *tile = cut.take<float>(p.tile_floats);
  s.turned = cut.take<float>(p.turned_floats);
  s.sums = cut.take<float>(p.row_sums);
  s.left = cut.take<const float*>(p.max_rows);
  return s;
}

// Zeros.
Memory allocate(size_t bytes) {
  const size_t alignment = bytes < 4 * HUGE_PAGE ? 64 : HUGE_PAGE;
  bytes = static_cast<size_t>(round_up(static_cast<int64_t>(bytes), alignment));
  Memory memory(std::aligned_alloc(alignment, bytes));
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == HUGE_PAGE) madvise(memory.get(), bytes, MADV_HUGEPAGE);
#endif
  std::memset(memory.get(), 0, bytes);
  return memory;
}

// Memory for all that `cut_all` takes of a cutter, which it does twice: to measure, and to take it.
template <class Cut>
Memory carve(Cut&& cut_all) {
  Cutter measure(nullptr);
  cut_all(measure);
  Memory memory = allocate(measure.used());
  Cutter cut(memory.get());
  cut_all(cut);
  return memory;
}

}  // namespace

void set_length(Plan& p, int length) {
  p.length = length;
  for (int i = 0; i < p.n_layers; i++) {
    Layer& a = p.layers[i];
    a.n_in = i ? p.layers[i - 1].n : length;
    a.n = ceil_div(a.n_in, a.stride);
    a.places = ceil_div(a.n + a.lead, a.phases);
  }
}

bool shares(const Plan& p) {
  return std::all_of(p.layers, p.layers + p.n_layers,
                     [](const Layer& a) { return a.left + a.right < a.segment_n; });
}

void pack_weights(const Plan& p, const float* weights) {
  for (int i = 0; i < p.n_layers; i++) {
    const Layer& a = p.layers[i];
    auto weight = [&](int co, int ci, int k) {
      const int64_t at = a.weights_at + (int64_t(co) * a.c_in + ci) * a.kernel + k;
      return co < a.c_out && ci < a.c_in ? weights[at] : 0.0f;
    };
    float* out = a.forward_weights;
    for (int block = 0; block < a.c_out; block += a.forward_block)
      for (int ci = 0; ci < a.c_in; ci++)
        for (int k = 0; k < a.kernel; k++)
          for (int j = 0; j < a.forward_block; j++) *out++ = weight(block + j, ci, k);
    out = p.training ? a.backward_weights : a.edge_weights;
    if (!p.training)
      for (int k = 0; k < a.kernel; k++)
        for (int ci = 0; ci < a.c_in; ci++)
          for (int co = 0; co < a.edge_lanes; co++) *out++ = weight(co, ci, k);
    else if (i > 0)
      for (int phase = 0; phase < a.stride; phase++)
        for (int block = 0; block < a.c_in; block += a.backward_block)
          for (int k = phase; k < a.kernel; k += a.stride)
            for (int co = 0; co < a.c_out; co++)
              for (int j = 0; j < a.backward_block; j++) *out++ = weight(co, block + j, k);
  }
}

Memory lay_out(const Shape& shape, bool training, const Kernels& kernels, Plan& p,
               std::vector<Layer>& layers) {
  check(shape);
  p = {};
  p.batch = shape.batch;
  p.hop = shape.hop;
  p.n_units = training ? std::min(shape.batch, N_UNITS) : 0;
  p.training = training;
  p.n_layers = static_cast<int>(shape.channels.size());
  layers.assign(p.n_layers, {});
  p.layers = layers.data();
  for (int i = 0; i < p.n_layers; i++) {
    layers[i].c_out = shape.channels[i];
    layers[i].kernel = shape.kernels[i];
    layers[i].stride = shape.strides[i];
    set_convolution(layers[i], i ? &layers[i - 1] : nullptr, shape, kernels.max_block);
    layers[i].phases = i + 1 < p.n_layers ? shape.strides[i + 1] : 1;
    layers[i].weights_at = p.n_weights;
    layers[i].channels_at = p.n_channels;
    p.n_weights += int64_t(layers[i].c_out) * layers[i].c_in * layers[i].kernel;
    p.n_channels += layers[i].c_out;
  }
  for (int i = 0; i + 1 < p.n_layers; i++) layers[i].lead = layers[i + 1].pad;
  set_edges(layers);
  set_length(p, shape.stretch(shape.n_segments));
  for (int i = p.n_layers - 1; i >= 0; i--) {
    const Layer* reader = i + 1 < p.n_layers ? &layers[i + 1] : nullptr;
    set_storage(layers[i], reader, training);
    const int64_t floats = tile_floats(layers[i], reader, kernels.max_block);
    p.tile_floats = std::max(p.tile_floats, round_up(floats, MARGIN));
    const int64_t edge = std::max(layers[i].left, layers[i].right);
    p.edge_floats = std::max(p.edge_floats, training ? 0 : edge * layers[i].edge_lanes);
  }
  set_waveform(p, p.length);
  set_sums(p, kernels);
  return carve([&](Cutter& cut) { place(p, cut, kernels.max_block); });
}

Workspace workspace(const Plan& p) {
  Workspace w;
  w.memory = carve([&](Cutter& cut) { w.scratch = cut_scratch(p, cut); });
  return w;
}

}  // namespace stapes
