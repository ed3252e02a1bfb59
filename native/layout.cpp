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
constexpr int TILE_FLOATS = 6144;  // 24 kB of activations: most of a first-level cache
constexpr size_t HUGE_PAGE = 2 << 20;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The largest block that divides n outputs into as few blocks as the registers allow.
int even_blocks(int n, int largest) { return ceil_div(n, ceil_div(n, largest)); }

void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

void check(const Shape& shape) {
  const size_t n = shape.channels.size();
  require(shape.batch >= 1 && shape.length >= 1, "batch and length must be at least 1");
  require(n >= 1 && n <= 64, "the number of layers must be in 1..64");
  require(shape.kernels.size() == n && shape.strides.size() == n,
          "channels, kernels and strides must have one number a layer");
  for (size_t i = 0; i < n; i++) {
    const int s = shape.strides[i];
    require(shape.channels[i] >= 1 && shape.channels[i] <= 1024, "channels must be in 1..1024");
    require(shape.kernels[i] >= 1 && shape.kernels[i] <= 1024, "kernels must be in 1..1024");
    require(s >= 1 && s <= MAX_PHASES && (s & (s - 1)) == 0, "strides must be 1, 2, 4, 8 or 16");
  }
}

// The convolution: TensorFlow's "same" padding, and the blocks its outputs are worked on in.
void set_convolution(Layer& a, int n_in, int c_in, int max_block) {
  a.n_in = n_in, a.c_in = c_in, a.n = ceil_div(n_in, a.stride);
  a.pad = static_cast<int>(std::max<int64_t>(int64_t(a.n - 1) * a.stride + a.kernel - n_in, 0) / 2);
  a.forward_block = even_blocks(a.c_out, max_block);
  a.backward_block = even_blocks(a.c_in, max_block);
}

// How the output is stored for its reader (null after the last layer).
void set_storage(Layer& a, const Layer* reader) {
  a.phases = reader ? reader->stride : 1;
  a.lead = reader ? reader->pad : 0;
  a.halo = reader ? (reader->kernel - 1) / reader->stride : 0;
  a.places = ceil_div(a.n + a.lead, a.phases);
  a.tile = std::clamp(TILE_FLOATS / (a.c_out * a.phases) / GRAIN * GRAIN, 2 * GRAIN, 8 * GRAIN);
  const int64_t ahead = round_up(a.halo, MARGIN);
  a.reach = round_up(std::max(a.places, reader ? reader->n : 0), GRAIN) + ahead;
  a.row = a.reach + MARGIN;
  if (a.row % 256 == 0) a.row += MARGIN;  // rows a power of two apart share few cache lines
  a.tile_row = a.tile + ahead + GRAIN + MARGIN;
}

// Floats of the largest tile that holds a layer's output, the next one's or a gradient of either.
int64_t tile_floats(const Layer& a, const Layer* reader, int max_block) {
  const int64_t own = (a.c_out + max_block) * a.phases * a.tile_row;
  if (!reader) return own;
  const int64_t next_row = reader->lead + a.tile_row + a.halo + 2 * MARGIN;
  return std::max(own, (reader->c_out + max_block) * next_row);
}

void set_waveform(Plan& p, int length) {
  const Layer& first = p.layers[0];
  p.x_phases = first.stride * first.phases;
  p.x_lead = first.pad + first.stride * first.lead;
  const int ahead = (first.stride * (first.phases - 1) + first.kernel - 1) / p.x_phases;
  const int64_t held = (p.x_lead + length) / p.x_phases + 1;
  p.x_row = round_up(std::max<int64_t>(first.reach + GRAIN + ahead, held) + MARGIN, MARGIN);
}

void set_sums(Plan& p, const Kernels& kernels) {
  int64_t outer = 0;
  for (int i = 0; i < p.n_layers; i++) {
    const Layer& a = p.layers[i];
    const int64_t taps = int64_t(a.c_in) * a.kernel;
    p.max_rows = std::max({p.max_rows, taps, int64_t(a.c_out) * a.kernel, 2 * a.c_out + int64_t(1)});
    p.row_sums = std::max(p.row_sums, round_up(a.c_out, kernels.outer_left) * taps);
    p.weight_sums = std::max<int64_t>(p.weight_sums, 3 * a.c_out);
    outer = std::max(outer, taps * a.c_out);
  }
  const Layer& first = p.layers[0];
  const int64_t n_first = 2 * first.c_out + 1;
  // The second layer's backward pass adds up the first layer's products too.
  p.row_sums += round_up(n_first, kernels.outer_left) * first.kernel;
  p.row_sums *= kernels.lanes;
  p.first_sums = p.weight_sums + outer;
  p.partial_size = round_up(p.first_sums + n_first * first.kernel, 8);
}

// Points everything into memory; `cut` without memory only measures.
void place(Plan& p, Cutter& cut, int max_block) {
  int64_t gradients[2] = {0, 0};
  for (int i = 0; i < p.n_layers; i++) {
    Layer& a = p.layers[i];
    const int64_t size = int64_t(p.batch) * a.c_out * a.phases * a.row + MARGIN;
    if (i > 0) a.y = cut.take<float>(size);
    if (i > 0 && p.training) gradients[i & 1] = std::max(gradients[i & 1], size);
    a.forward_weights = cut.take<float>(int64_t(a.c_out + max_block) * a.c_in * a.kernel);
    a.backward_weights = cut.take<float>(int64_t(a.c_in + max_block) * a.kernel * a.c_out);
    for (float** v : {&a.scale, &a.shift, &a.rstd, &a.mean_rstd, &a.dy_g, &a.dy_y, &a.dy_1})
      *v = cut.take<float>(a.c_out);
  }
  p.gradients[0] = cut.take<float>(gradients[0]);
  p.gradients[1] = cut.take<float>(gradients[1]);
  p.x = cut.take<float>(int64_t(p.batch) * p.x_phases * p.x_row);
  p.partial = cut.take<double>(p.n_units * p.partial_size);
}

Scratch cut_scratch(const Plan& p, Cutter& cut) {
  Scratch s;
  for (float** tile : {&s.activations, &s.first, &s.out, &s.dy})
    *tile = cut.take<float>(p.tile_floats);
  s.sums = cut.take<float>(p.row_sums);
  s.left = cut.take<const float*>(p.max_rows);
  s.right = cut.take<const float*>(p.max_rows);
  return s;
}

}  // namespace

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

Memory lay_out(const Shape& shape, bool training, const Kernels& kernels, Plan& p,
               std::vector<Layer>& layers) {
  check(shape);
  p.batch = shape.batch;
  p.n_units = training ? std::min(shape.batch, N_UNITS) : shape.batch;
  p.training = training;
  p.n_layers = static_cast<int>(shape.channels.size());
  layers.resize(p.n_layers);
  p.layers = layers.data();
  for (int i = 0; i < p.n_layers; i++) {
    layers[i].c_out = shape.channels[i];
    layers[i].kernel = shape.kernels[i];
    layers[i].stride = shape.strides[i];
    set_convolution(layers[i], i ? layers[i - 1].n : shape.length, i ? layers[i - 1].c_out : 1,
                    kernels.max_block);
  }
  for (int i = p.n_layers - 1; i >= 0; i--) {
    const Layer* reader = i + 1 < p.n_layers ? &layers[i + 1] : nullptr;
    set_storage(layers[i], reader);
    const int64_t floats = tile_floats(layers[i], reader, kernels.max_block);
    p.tile_floats = std::max(p.tile_floats, round_up(floats, MARGIN));
  }
  set_waveform(p, shape.length);
  set_sums(p, kernels);
  Cutter measure(nullptr);
  place(p, measure, kernels.max_block);
  Memory memory = allocate(measure.used());
  Cutter cut(memory.get());
  place(p, cut, kernels.max_block);
  return memory;
}

Memory scratch_memory(const Plan& p) {
  Cutter measure(nullptr);
  cut_scratch(p, measure);
  return allocate(measure.used());
}

Scratch scratch_in(const Plan& p, const Memory& memory) {
  Cutter cut(memory.get());
  return cut_scratch(p, cut);
}

}  // namespace stapes
