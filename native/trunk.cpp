// Memory, the order of passes, and what is done serially between them.
#include "trunk.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "team.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace stapes {
namespace {

constexpr int N_UNITS = 16;         // parts of a batch: enough to share out, few to add up
constexpr int TILE_FLOATS = 6144;   // 24 kB of activations: half of a first-level cache, about
constexpr size_t HUGE_PAGE = 2 << 20;

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

int ceil_div(int a, int b) { return (a + b - 1) / b; }

int even_blocks(int n, int largest) { return ceil_div(n, ceil_div(n, largest)); }

// TensorFlow's "same" padding in front.
int padding(int n_in, int n, int kernel, int stride) {
  return static_cast<int>(std::max<int64_t>(int64_t(n - 1) * stride + kernel - n_in, 0) / 2);
}

// Hands out pieces of one allocation; first run without memory to learn its size.
class Cutter {
 public:
  explicit Cutter(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    return piece;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace

Trunk::Trunk(const Shape& shape, bool training) : shape_(shape), kernels_(choose_kernels()) {
  check(shape);
  plan_.batch = shape.batch;
  plan_.n_units = training ? std::min(shape.batch, N_UNITS) : shape.batch;
  plan_.training = training;
  plan_.n_layers = static_cast<int>(shape.channels.size());
  layers_.resize(plan_.n_layers);
  normalisations_.resize(plan_.n_layers);
  plan_.layers = layers_.data();
  lay_out();
}

void Trunk::lay_out() {
  const int n_layers = plan_.n_layers;
  int n = shape_.length, channels = 1;
  for (int i = 0; i < n_layers; i++) {
    Layer& a = layers_[i];
    a.c_in = channels, a.n_in = n, a.kernel = shape_.kernels[i], a.stride = shape_.strides[i];
    a.n = n = ceil_div(n, a.stride);
    a.c_out = channels = shape_.channels[i];
    a.pad = padding(a.n_in, a.n, a.kernel, a.stride);
    a.forward_block = even_blocks(a.c_out, kernels_.max_block);
    a.backward_block = even_blocks(a.c_in, kernels_.max_block);
  }
  int64_t tile_floats = 0, max_rows = 0, row_sums = 0, x_need = 0, partial = 0;
  for (int i = 0; i < n_layers; i++) {
    Layer& a = layers_[i];
    const Layer* reader = i + 1 < n_layers ? &layers_[i + 1] : nullptr;
    a.phases = reader ? reader->stride : 1;
    a.lead = reader ? reader->pad : 0;
    a.halo = reader ? (reader->kernel - 1) / reader->stride : 0;
    a.places = ceil_div(a.n + a.lead, a.phases);
    a.tile = static_cast<int>(
        std::clamp<int64_t>(TILE_FLOATS / (a.c_out * a.phases) / GRAIN * GRAIN, 64, 256));
    const int64_t ahead = round_up(a.halo, MARGIN);
    const int64_t furthest = round_up(std::max(a.places, reader ? reader->n : 0), GRAIN) + ahead;
    a.row = furthest + MARGIN;
    if (a.row % 256 == 0) a.row += MARGIN;  // rows a power of two apart share few cache lines
    a.tile_row = a.tile + ahead + GRAIN + MARGIN;
    const int64_t padded = round_up(a.c_out, a.forward_block) + kernels_.max_block;
    const int c_next = reader ? reader->c_out : 0;
    const int lead_next = i + 1 < n_layers - 1 ? layers_[i + 2].pad : 0;
    tile_floats = std::max({tile_floats, padded * a.phases * a.tile_row,
                            (c_next + kernels_.max_block + 1) *
                                (std::max(a.tile_row, int64_t(lead_next)) + lead_next + a.tile +
                                 a.halo + 2 * MARGIN)});
    max_rows = std::max<int64_t>({max_rows, int64_t(a.c_in) * a.kernel,
                                  int64_t(a.c_out) * a.kernel, 2 * a.c_out + 1});
    const int64_t outer = int64_t(a.c_in) * a.kernel * a.c_out;
    const int64_t left = round_up(2 * a.c_out + 1, kernels_.outer_left);
    row_sums = std::max(row_sums, round_up(a.c_out, kernels_.outer_left) * a.c_in * a.kernel);
    if (i == 0) partial = left * a.kernel, x_need = furthest;
    plan_.weight_sums = std::max(plan_.weight_sums, int64_t(3) * a.c_out);
    plan_.first_sums = std::max(plan_.first_sums, outer);
  }
  row_sums += partial;  // both are in use in the second layer's backward pass
  const int64_t first_size = int64_t(2 * layers_[0].c_out + 1) * layers_[0].kernel;
  plan_.first_sums += plan_.weight_sums;
  plan_.partial_size = round_up(plan_.first_sums + first_size, 8);
  plan_.tile_floats = round_up(tile_floats, 16);
  plan_.max_rows = static_cast<int>(max_rows);
  plan_.row_sums = row_sums * kernels_.lanes;

  const Layer& first = layers_[0];
  plan_.x_phases = first.stride * first.phases;
  plan_.x_lead = first.pad + first.stride * first.lead;
  const int ahead = (first.stride * (first.phases - 1) + first.kernel - 1) / plan_.x_phases;
  const int64_t held = (plan_.x_lead + shape_.length) / plan_.x_phases + 1;
  plan_.x_row = round_up(std::max(x_need + GRAIN + ahead, held) + MARGIN, MARGIN);

  for (const bool measure : {true, false}) {
    Cutter cut(measure ? nullptr : memory_.get());
    int64_t gradients[2] = {0, 0};
    for (int i = 0; i < n_layers; i++) {
      Layer& a = layers_[i];
      const int64_t size = int64_t(plan_.batch) * a.c_out * a.phases * a.row + MARGIN;
      if (i > 0) a.y = cut.take<float>(size);
      if (i > 0 && plan_.training) gradients[i & 1] = std::max(gradients[i & 1], size);
      const int64_t taps = int64_t(a.c_in) * a.kernel;
      a.forward_weights = cut.take<float>(round_up(a.c_out, a.forward_block) * taps);
      a.backward_weights =
          cut.take<float>(round_up(a.c_in, a.backward_block) * a.kernel * a.c_out);
      for (float** v : {&a.scale, &a.shift, &a.rstd, &a.mean_rstd, &a.dy_g, &a.dy_y, &a.dy_1})
        *v = cut.take<float>(a.c_out);
    }
    plan_.gradients[0] = cut.take<float>(gradients[0]);
    plan_.gradients[1] = cut.take<float>(gradients[1]);
    plan_.x = cut.take<float>(int64_t(plan_.batch) * plan_.x_phases * plan_.x_row);
    plan_.partial = cut.take<double>(plan_.n_units * plan_.partial_size);
    if (measure) memory_ = allocate(cut.used());
  }
}

// ---- scratch ----

void Trunk::reserve(int n_threads) {
  const size_t bytes =
      (4 * plan_.tile_floats + plan_.row_sums) * sizeof(float) + 2 * plan_.max_rows * sizeof(void*);
  while (static_cast<int>(scratch_.size()) < n_threads) scratch_.push_back(allocate(bytes + 512));
}

Scratch Trunk::scratch(int member) const {
  Cutter cut(scratch_[member].get());
  Scratch s;
  for (float** tile : {&s.activations, &s.first, &s.out, &s.dy})
    *tile = cut.take<float>(plan_.tile_floats);
  s.sums = cut.take<float>(plan_.row_sums);
  s.left = cut.take<const float*>(plan_.max_rows);
  s.right = cut.take<const float*>(plan_.max_rows);
  return s;
}

// ---- packing ----

void Trunk::pack_weights(const Arrays& weights) {
  first_weights_.assign(weights[0], weights[0] + layers_[0].c_out * layers_[0].kernel);
  for (int i = 0; i < plan_.n_layers; i++) {
    const Layer& a = layers_[i];
    auto weight = [&](int co, int ci, int k) {
      return co < a.c_out && ci < a.c_in ? weights[i][(int64_t(co) * a.c_in + ci) * a.kernel + k]
                                         : 0.0f;
    };
    float* out = a.forward_weights;
    for (int block = 0; block < a.c_out; block += a.forward_block)
      for (int ci = 0; ci < a.c_in; ci++)
        for (int k = 0; k < a.kernel; k++)
          for (int j = 0; j < a.forward_block; j++) *out++ = weight(block + j, ci, k);
    if (i == 0 || !plan_.training) continue;
    out = a.backward_weights;
    for (int phase = 0; phase < a.stride; phase++)
      for (int block = 0; block < a.c_in; block += a.backward_block)
        for (int k = phase; k < a.kernel; k += a.stride)
          for (int co = 0; co < a.c_out; co++)
            for (int j = 0; j < a.backward_block; j++) *out++ = weight(co, block + j, k);
  }
}

void Trunk::pack_waveform(const float* x, int slot) {
  float* out = plan_.x + int64_t(slot) * plan_.x_phases * plan_.x_row;
  const int phases = plan_.x_phases;
  for (int phase = 0; phase < phases; phase++) {
    const int begin = ((phase - plan_.x_lead) % phases + phases) % phases;
    float* row = out + phase * plan_.x_row + (begin + plan_.x_lead) / phases;
    for (int t = begin; t < shape_.length; t += phases) *row++ = x[t];
  }
}

// ---- between the passes ----

double Trunk::total(int64_t at) const {
  double sum = 0;
  for (int unit = 0; unit < plan_.n_units; unit++)
    sum += plan_.partial[unit * plan_.partial_size + at];
  return sum;
}

// Mean and variance of the batch from those of the units (Chan, Golub and LeVeque, 1983).
void Trunk::combine_statistics(int i, const Arrays& betas, double epsilon, float* mean,
                               float* variance) {
  const Layer& a = layers_[i];
  Normalisation& norm = normalisations_[i];
  for (int c = 0; c < a.c_out; c++) {
    double n = 0, m = 0, squares = 0;
    for (int unit = 0; unit < plan_.n_units; unit++) {
      const double* s = plan_.partial + unit * plan_.partial_size + 3 * c;
      const double count = double(unit_begin(plan_, unit + 1) - unit_begin(plan_, unit)) * a.n;
      const double delta = s[0] + s[1] / count - m;
      m += delta * count / (n + count);
      squares += s[2] - s[1] * s[1] / count + delta * delta * n * count / (n + count);
      n += count;
    }
    const double v = std::max(squares / n, 0.0), rstd = 1 / std::sqrt(v + epsilon);
    mean[c] = static_cast<float>(m);
    variance[c] = static_cast<float>(std::isnan(squares) ? squares : v);
    norm.mean[c] = m;
    norm.rstd[c] = rstd;
    a.rstd[c] = static_cast<float>(rstd);
    a.mean_rstd[c] = static_cast<float>(m * rstd);
    a.scale[c] = static_cast<float>(norm.gamma[c] * rstd);
    a.shift[c] = static_cast<float>(betas[i][c] - m * norm.gamma[c] * rstd);
  }
}

// d y = gamma * rstd * (g - mean(g) - x mean(g x)), x the normalised y (Ioffe and Szegedy, 2015).
void Trunk::combine_sums(int i) {
  const Layer& a = layers_[i];
  Normalisation& norm = normalisations_[i];
  const double n = double(plan_.batch) * a.n;
  for (int c = 0; c < a.c_out; c++) {
    norm.sum_g[c] = total(2 * c);
    norm.sum_gx[c] = total(2 * c + 1);
    const double by = norm.gamma[c] * norm.rstd[c], slope = by * norm.rstd[c] * norm.sum_gx[c] / n;
    a.dy_g[c] = static_cast<float>(by);
    a.dy_y[c] = static_cast<float>(-slope);
    a.dy_1[c] = static_cast<float>(slope * norm.mean[c] - by * norm.sum_g[c] / n);
  }
}

void Trunk::combine_weights(int i, float* d_weights) const {
  const Layer& a = layers_[i];
  const int taps = a.c_in * a.kernel;
  for (int r = 0; r < taps; r++)
    for (int co = 0; co < a.c_out; co++)
      d_weights[int64_t(co) * taps + r] =
          static_cast<float>(total(plan_.weight_sums + int64_t(r) * a.c_out + co));
}

void Trunk::first_weights(float* d_weights) const {
  const Layer& a = layers_[0];
  const Normalisation& norm = normalisations_[0];
  const double n = double(plan_.batch) * a.n;
  for (int k = 0; k < a.kernel; k++) {
    const int64_t at = plan_.first_sums + int64_t(k) * (2 * a.c_out + 1);
    const double ones = total(at + 2 * a.c_out);
    for (int c = 0; c < a.c_out; c++) {
      const double normalised = norm.rstd[c] * (total(at + a.c_out + c) - norm.mean[c] * ones);
      const double d = total(at + c) - norm.sum_g[c] / n * ones - norm.sum_gx[c] / n * normalised;
      d_weights[int64_t(c) * a.kernel + k] = static_cast<float>(norm.gamma[c] * norm.rstd[c] * d);
    }
  }
}

// ---- the passes ----

void Trunk::forward(const float* x, const Arrays& weights, const Arrays& gammas,
                    const Arrays& betas, double epsilon, int n_threads, float* pooled, float* mean,
                    float* variance) {
  pack_weights(weights);
  for (int i = 0; i < plan_.n_layers; i++) {
    Normalisation& norm = normalisations_[i];
    const size_t c = layers_[i].c_out;
    norm.gamma.assign(gammas[i], gammas[i] + c);
    for (auto* v : {&norm.mean, &norm.rstd, &norm.sum_g, &norm.sum_gx}) v->assign(c, 0.0);
  }
  reserve(n_threads);
  Team::run(n_threads, [&](Team& team, int member) {
    const Scratch s = scratch(member);
    int64_t at = 0;
    for (int i = 0; i < plan_.n_layers; at += layers_[i].c_out, i++)
      team.phase(
          plan_.n_units,
          [&](int unit) {
            if (i > 0) return kernels_.forward(plan_, i, unit, s);
            for (int b = unit_begin(plan_, unit); b < unit_begin(plan_, unit + 1); b++)
              pack_waveform(x + int64_t(b) * shape_.length, b);
            kernels_.first_statistics(plan_, unit, s);
          },
          [&] { combine_statistics(i, betas, epsilon, mean + at, variance + at); });
    team.phase(
        plan_.n_units,
        [&](int unit) {
          const int64_t first = unit_begin(plan_, unit);
          kernels_.pool(plan_, unit, s, pooled + first * layers_.back().c_out, nullptr);
        },
        [] {});
  });
}

void Trunk::backward(const float* d_pooled, int n_threads, const std::vector<float*>& d_weights,
                     const std::vector<float*>& d_gammas, const std::vector<float*>& d_betas) {
  reserve(n_threads);
  const int top = plan_.n_layers - 1;
  Team::run(n_threads, [&](Team& team, int member) {
    const Scratch s = scratch(member);
    for (int i = top + 1; i >= 1; i--)
      team.phase(
          plan_.n_units,
          [&](int unit) {
            if (i > top) return kernels_.top_gradient(plan_, unit, s, d_pooled);
            kernels_.backward(plan_, i, unit, s);
          },
          [&] {
            combine_sums(i - 1);
            if (i <= top) combine_weights(i, d_weights[i]);
            if (i == 1) first_weights(d_weights[0]);
          });
  });
  for (int i = 0; i <= top; i++)
    for (int c = 0; c < layers_[i].c_out; c++) {
      d_gammas[i][c] = static_cast<float>(normalisations_[i].sum_gx[c]);
      d_betas[i][c] = static_cast<float>(normalisations_[i].sum_g[c]);
    }
}

void Trunk::infer(const float* x, int64_t n, const Arrays& weights, const Arrays& biases,
                  float* pooled, float* frames) {
  pack_weights(weights);
  for (int i = 0; i < plan_.n_layers; i++) {
    std::fill_n(layers_[i].scale, layers_[i].c_out, 1.0f);
    std::copy_n(biases[i], layers_[i].c_out, layers_[i].shift);
  }
  const int n_threads = plan_.batch;  // one slot of the batch each
  const Layer& last = layers_.back();
  reserve(n_threads);
  std::atomic<int64_t> next{0};
  Team::run(n_threads, [&](Team&, int member) {
    const Scratch s = scratch(member);
    for (int64_t i; (i = next.fetch_add(1)) < n;) {
      pack_waveform(x + i * shape_.length, member);
      for (int layer = 1; layer < plan_.n_layers; layer++)
        kernels_.forward(plan_, layer, member, s);
      kernels_.pool(plan_, member, s, pooled + i * last.c_out,
                    frames ? frames + i * last.n * last.c_out : nullptr);
    }
  });
}

}  // namespace stapes
