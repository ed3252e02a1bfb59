// Forward and backward passes of one unit of the batch. Built once for every instruction set, with
// STAPES_KERNELS the name of the table; nothing here may use the standard library's templates, or
// the linker could pick their AVX-512 code for a machine without it.
#include "edges.h"
#include "tiles.h"
#include "vary.h"

namespace stapes {
namespace {

// x [length] to the phases in which the first layer reads it, and zeros behind.
template <int P>
void pack_phases(const Plan& p, const float* x, float offset, float scale, float* out) {
  const Phases phases{p.x_phases, p.x_lead, p.x_row};
  const Putter<P> putter(phases);
  int t = 0;
  for (; t + 2 * V <= p.length; t += 2 * V) {
    __builtin_prefetch(x + t + 1024);  // a page ahead, where the processor does not look
    putter.put(out, t, (load(x + t) - offset) * scale, (load(x + t + V) - offset) * scale);
  }
  for (; t < p.length + p.x_ahead; t++)
    out[phases.place(t)] = t < p.length ? (x[t] - offset) * scale : 0.0f;
}

void pack(const Plan& p, int slot, const float* x, float offset, float scale) {
  float* out = p.x + int64_t(slot) * p.x_phases * p.x_row;
  if (p.x_phases == 4) return pack_phases<4>(p, x, offset, scale, out);
  pack_phases<0>(p, x, offset, scale, out);
}

// Calls use(b, first, n) on the tiles, of n places each, of all examples of a unit.
template <class Use>
void over_tiles(const Plan& p, int unit, int places, int tile, Use&& use) {
  for (int b = unit_begin(p, unit); b < unit_begin(p, unit + 1); b++)
    for (int first = 0; first < places; first += tile)
      use(b, first, places - first < tile ? places - first : tile);
}

// ---- batch statistics, shifted by a value from the data so that the squares do not cancel ----

constexpr int SUMMED = 8 * GRAIN;  // frames whose sums are single precision

void add_statistics(const float* y, int n, double* out) {
  const float shift = static_cast<float>(out[0]);
  int t = 0;
  for (int end; t + V <= n; t = end) {
    end = t + SUMMED < n / V * V ? t + SUMMED : n / V * V;
    Vector s{}, q{};
    for (int u = t; u < end; u += V) {
      const Vector d = load(y + u) - shift;
      s += d;
      q += d * d;
    }
    out[1] += sum(s);
    out[2] += sum(q);
  }
  for (; t < n; t++) {
    const double d = double(y[t]) - shift;
    out[1] += d;
    out[2] += d * d;
  }
}

void first_statistics(const Plan& p, int unit, const Scratch& s) {
  const Layer& layer = p.layers[0];
  double* out = p.partial + unit * p.partial_size;
  std::memset(out, 0, sizeof(double) * 3 * layer.c_out);
  over_tiles(p, unit, layer.places, layer.tile, [&](int b, int first, int count) {
    first_tile(p, b, first, count, nullptr, s);
    const int at = layer.lead / layer.phases - first;  // of the first frame
    for (int c = 0; c < layer.c_out; c++) {
      const float* y = s.first + c * layer.phases * layer.tile_row;
      if (b == unit_begin(p, unit) && at >= 0 && at < count)
        out[3 * c] = y[layer.lead % layer.phases * layer.tile_row + at];
      for (int phase = 0; phase < layer.phases; phase++, y += layer.tile_row) {
        const Range range = valid(layer, phase, first, count);
        add_statistics(y + range.begin, range.end - range.begin, out + 3 * c);
      }
    }
  });
}

// ---- forward: y of a layer from the tiles of the one below ----

void forward(const Plan& p, int i, int unit, const Scratch& s) {
  const Layer &below = p.layers[i - 1], &layer = p.layers[i];
  double* out = p.partial + unit * p.partial_size;
  std::memset(out, 0, sizeof(double) * 3 * layer.c_out);
  over_tiles(p, unit, layer.n, below.tile, [&](int b, int first, int n) {
    const int grains = static_cast<int>(round_up(n, GRAIN));
    const int count = grains + static_cast<int>(round_up(below.halo, MARGIN));
    const Tile tile = read_tile(p, i - 1, b, first, count, s);
    input_rows(layer, tile.activations, tile.row, s.right);
    multiply(layer.forward_weights, layer.forward_block, layer.c_out, s.right,
             layer.c_in * layer.kernel, stored(layer, b, first, nullptr), grains);
    for (int c = 0; c < layer.c_out; c++) {
      if (b == unit_begin(p, unit) && first == 0)
        out[3 * c] = layer.y[offset(layer, b, c, layer.lead % layer.phases,
                                    layer.lead / layer.phases)];
      for (int phase = 0; phase < layer.phases; phase++) {
        const Range range = places_of(layer, phase, first, first + n);
        add_statistics(layer.y + offset(layer, b, c, phase, range.begin), range.end - range.begin,
                       out + 3 * c);
      }
    }
  });
}

// Mean over time of the last layer, of the unit's examples.
void pool(const Plan& p, int unit, const Scratch& s, float* pooled) {
  const int i = p.n_layers - 1;
  const Layer& layer = p.layers[i];
  double* means = p.partial + unit * p.partial_size;
  for (int b = unit_begin(p, unit); b < unit_begin(p, unit + 1); b++) {
    std::memset(means, 0, sizeof(double) * layer.c_out);
    for (int first = 0; first < layer.places; first += layer.tile) {
      const int n = layer.n - first < layer.tile ? layer.n - first : layer.tile;
      const Tile tile = read_tile(p, i, b, first, static_cast<int>(round_up(n, MARGIN)), s);
      for (int c = 0; c < layer.c_out; c++) {
        const float* a = tile.activations + c * tile.row;
        Vector total{};
        for (int t = 0; t < n; t += V) total += load(a + t);
        means[c] += sum(total);
      }
    }
    for (int c = 0; c < layer.c_out; c++) *pooled++ = static_cast<float>(means[c] / layer.n);
  }
}

// ---- levels ----

// Calls use(vector) on all samples of a block, the last of which may be padded with `rest`.
template <class Use>
void over(const float* x, int64_t length, float rest, Use&& use) {
  int64_t t = 0;
  for (; t + V <= length; t += V) use(load(x + t));
  if (t == length) return;
  Vector last = spread(rest);
  std::memcpy(&last, x + t, sizeof(float) * (length - t));
  use(last);
}

void describe(const float* x, int64_t n_blocks, int64_t length, double* means, double* squares,
              float* peaks) {
  for (int64_t i = 0; i < n_blocks; i++, x += length) {
    Vector total{}, high{}, square{};
    over(x, length, 0.0f, [&](Vector v) {
      total += v;
      const Vector size = v < 0.0f ? -v : v;
      high = size > high ? size : high;
    });
    const float mean = static_cast<float>(sum(total) / length);
    over(x, length, mean, [&](Vector v) { square += (v - mean) * (v - mean); });
    means[i] = mean;
    squares[i] = sum(square);
    peaks[i] = 0;
    for (int j = 0; j < V; j++) peaks[i] = high[j] > peaks[i] ? high[j] : peaks[i];
  }
}

// ---- inference: a stretch of segments, depth first ----

// Frames first, ..., first + n - 1 of a layer's activations; zeros behind the last of all.
void infer_tile(const Plan& p, int i, int slot, int first, int n, const Scratch& s) {
  const Layer& layer = p.layers[i];
  const int grains = static_cast<int>(round_up(n, GRAIN));
  if (i == 0) {
    waveform_rows(p, slot, 0, first, s.right);
  } else if (i == 1) {
    const Layer& below = p.layers[0];
    first_tile(p, slot, first, grains + static_cast<int>(round_up(below.halo, MARGIN)),
               below.shift, s);
    input_rows(layer, s.first, below.tile_row, s.right);
  } else {
    const Layer& below = p.layers[i - 1];
    input_rows(layer, below.y + offset(below, slot, 0, 0, first), below.row, s.right);
  }
  multiply(layer.forward_weights, layer.forward_block, layer.c_out, s.right,
           layer.c_in * layer.kernel, stored(layer, slot, first, layer.shift), grains);
  if (first + n < layer.n) return;
  const int behind = layer.n + layer.phases * (layer.halo + MARGIN);
  for (int phase = 0; phase < layer.phases; phase++) {
    const Range range = places_of(layer, phase, layer.n, behind);
    for (int c = 0; c < layer.c_out; c++)
      std::memset(layer.y + offset(layer, slot, c, phase, range.begin), 0,
                  sizeof(float) * (range.end - range.begin));
  }
}

// How many frames of a layer can be computed from so many of the one below, in whole grains.
int ready(const Layer& layer, int n_below) {
  if (n_below == layer.n_in) return layer.n;
  const int n = n_below + layer.pad - layer.kernel;
  return n < 0 ? 0 : clamp((n / layer.stride + 1) / GRAIN * GRAIN, 0, layer.n);
}

constexpr int ROUND = 4;  // tiles of the first stored layer before the others take over

// Tile by tile through all layers, so that what one has written the next still finds in a cache.
void infer(const Plan& p, int slot, const Stretch& stretch, const Scratch& s) {
  const int top = p.n_layers - 1, bottom = top > 0;
  const Layer& last = p.layers[top];
  int done[MAX_LAYERS] = {}, next = 0;
  pack(p, slot, stretch.x, stretch.offset, stretch.scale);
  while (next < stretch.n_segments) {
    for (int i = bottom; i <= top; i++) {
      const Layer& layer = p.layers[i];
      const int tile = p.layers[i > 0 ? i - 1 : 0].tile;
      const int most = i > bottom ? ready(layer, done[i - 1])
                                  : clamp(done[i] + ROUND * tile, 0, layer.n);
      for (int n; done[i] < most; done[i] += n) {
        n = most - done[i] < tile ? most - done[i] : tile;
        infer_tile(p, i, slot, done[i], n, s);
      }
    }
    while (next < stretch.n_segments && next * last.segment_hop + last.segment_n <= done[top])
      pool_segment(p, slot, next++, stretch, s);
  }
}

// ---- backward ----

// From the gradient of a tile of activations to g, that of the normalised output: where the ReLU
// was open. Adds up its sums; stores it, or in the first layer uses it at once.
void put_gradient(const Plan& p, int i, int b, int first, int count, const Tile& tile,
                  const Scratch& s, double* sums) {
  const Layer& layer = p.layers[i];
  for (int c = 0; c < layer.c_out; c++) {
    const Vector rstd = spread(layer.rstd[c]), mean_rstd = spread(layer.mean_rstd[c]);
    for (int phase = 0; phase < layer.phases; phase++) {
      const int j = c * layer.phases + phase;
      const float *a = tile.activations + j * tile.row, *y = tile.y + j * tile.y_row;
      float* d = s.out + j * layer.tile_row;
      float* g = i == 0 ? d : p.gradients[i & 1] + offset(layer, b, c, phase, first);
      const float* next = g + (i == 0 ? layer.tile_row : layer.row);
      for (int u = 0, end; u < count; u = end) {
        end = u + SUMMED < count ? u + SUMMED : count;
        Vector total{}, product{};
        for (int t = u; t < end; t += V) {
          __builtin_prefetch(next + t, 1);  // as in tiles.h; to write
          const Vector v = where_positive(load(a + t), load(d + t));
          store(g + t, v);
          total += v;
          product += v * (load(y + t) * rstd - mean_rstd);
        }
        sums[2 * c] += sum(total);
        sums[2 * c + 1] += sum(product);
      }
    }
  }
}

// The first layer's weights from what is at hand: the gradient of its output is a mixture of g, y
// and 1 whose shares are known only after the whole batch, so the three are summed separately.
void first_outer(const Plan& p, int b, int first, int count, const Scratch& s, float* sums) {
  const Layer& layer = p.layers[0];
  const int64_t channel_row = layer.phases * layer.tile_row;
  for (int phase = 0; phase < layer.phases; phase++) {
    float* ones = s.dy;
    for (int u = 0; u < count; u += V) store(ones + u, spread(1.0f));
    keep_valid(ones, valid(layer, phase, first, count), count);
    for (int c = 0; c < layer.c_out; c++) {
      s.left[c] = s.out + c * channel_row + phase * layer.tile_row;
      s.left[layer.c_out + c] = s.first + c * channel_row + phase * layer.tile_row;
    }
    s.left[2 * layer.c_out] = ones;
    waveform_rows(p, b, phase, first, s.right);
    add_outer(s.left, 2 * layer.c_out + 1, s.right, layer.kernel, count, sums);
  }
}

// The gradient of frames first - ahead, ..., first + count - 1 of a layer's y: zero outside.
void read_dy(const Plan& p, int i, int b, int first, int ahead, int count, const Scratch& s,
             int64_t row) {
  const Layer& layer = p.layers[i];
  const int start = first - ahead, length = ahead + count;
  const int begin = start + layer.lead > 0 ? (start + layer.lead) / layer.phases : 0;
  const int wanted = ceil_div(first + count + layer.lead, layer.phases);
  const int end = wanted < layer.places ? wanted : layer.places;
  const Range range{clamp(-start, 0, length), clamp(layer.n - start, 0, length)};
  for (int c = 0; c < layer.c_out; c++) {
    float* dy = s.dy + c * row + MARGIN;
    const int64_t at = offset(layer, b, c, 0, begin);
    from_phases(p.gradients[i & 1] + at, layer.y + at, layer.phases, layer.row, end - begin,
                {layer.dy_g[c], layer.dy_y[c], layer.dy_1[c]},
                dy + (layer.phases * begin - layer.lead - start));
    keep_valid(dy, range, length);
  }
}

// The gradient of the activations below, phase by phase: y's taps turned round.
void input_gradient(const Layer& layer, const Layer& below, int ahead, int count, const Scratch& s,
                    int64_t dy_row) {
  const float* weights = layer.backward_weights;
  const int64_t padded = round_up(layer.c_in, layer.backward_block);
  for (int phase = 0; phase < layer.stride; phase++) {
    int n_rows = 0;
    for (int k = phase; k < layer.kernel; k += layer.stride)
      for (int c = 0; c < layer.c_out; c++)
        s.right[n_rows++] = s.dy + c * dy_row + MARGIN + ahead - k / layer.stride;
    multiply(weights, layer.backward_block, layer.c_in, s.right, n_rows,
             {s.out + phase * below.tile_row, layer.stride * below.tile_row, {1, 0, 0}, nullptr},
             count);
    weights += padded * n_rows;
  }
}

constexpr int64_t FLUSH = 8192;  // frames whose products are added up in single precision

void top_gradient(const Plan& p, int unit, const Scratch& s, const float* d_pooled) {
  const int i = p.n_layers - 1;
  const Layer& layer = p.layers[i];
  double* sums = p.partial + unit * p.partial_size;
  std::memset(sums, 0, sizeof(double) * p.partial_size);
  over_tiles(p, unit, layer.places, layer.tile, [&](int b, int first, int n) {
    const int count = static_cast<int>(round_up(n, GRAIN));
    for (int c = 0; c < layer.c_out; c++) {
      const Vector d = spread(d_pooled[int64_t(b) * layer.c_out + c] / layer.n);
      for (int u = 0; u < count; u += V) store(s.out + c * layer.tile_row + u, d);
    }
    const Tile tile = read_tile(p, i, b, first, count, s);
    put_gradient(p, i, b, first, count, tile, s, sums);
    if (i > 0) return;
    first_outer(p, b, first, count, s, s.sums);
    if (first + n == layer.places)
      flush_outer(s.sums, 2 * layer.c_out + 1, layer.kernel, sums + p.first_sums);
  });
}

void backward(const Plan& p, int i, int unit, const Scratch& s) {
  const Layer &layer = p.layers[i], &below = p.layers[i - 1];
  const int n_rows = layer.c_in * layer.kernel, n_first = 2 * below.c_out + 1;
  const int ahead = static_cast<int>(round_up(below.halo, MARGIN));
  const int64_t dy_row = below.tile_row + ahead + 2 * MARGIN;
  double* sums = p.partial + unit * p.partial_size;
  float* first_sums = s.sums + layer.sums;
  std::memset(sums, 0, sizeof(double) * p.partial_size);
  const bool along = !goes_across(layer.c_out, V);
  int64_t unflushed = 0;
  over_tiles(p, unit, below.places, below.tile, [&](int b, int first, int n) {
    const int count = static_cast<int>(round_up(n, GRAIN));
    const Tile tile = read_tile(p, i - 1, b, first, count + ahead, s);
    read_dy(p, i, b, first, ahead, count, s, dy_row);
    for (int c = 0; c < layer.c_out; c++) s.left[c] = s.dy + c * dy_row + MARGIN + ahead;
    input_rows(layer, tile.activations, tile.row, s.right);
    if (along) add_outer(s.left, layer.c_out, s.right, n_rows, count, s.sums);
    else add_across(s.left, layer.c_out, s.right, n_rows, n, s.turned, s.sums);
    input_gradient(layer, below, ahead, count, s, dy_row);
    put_gradient(p, i - 1, b, first, count, tile, s, sums);
    if (i == 1) first_outer(p, b, first, count, s, first_sums);
    unflushed += below.tile;
    const bool last = b == unit_begin(p, unit + 1) - 1 && first + n == below.places;
    if (unflushed < FLUSH && !last) return;
    (along ? flush_outer : flush_across)(s.sums, layer.c_out, n_rows, sums + p.weight_sums);
    if (i == 1) flush_outer(first_sums, n_first, below.kernel, sums + p.first_sums);
    unflushed = 0;
  });
}

}  // namespace

extern const Kernels STAPES_KERNELS = {
    STAPES_NAME, MAX_BLOCK, OUTER_LEFT, V, pack, first_statistics, forward, pool, top_gradient, backward,
    infer, describe, draw, vary};

}  // namespace stapes
