// The order of passes, and what is done serially between them.
#include "trunk.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "team.h"

namespace stapes {

Trunk::Trunk(const Shape& shape, bool training) : shape_(shape), kernels_(choose_kernels()) {
  memory_ = lay_out(shape, training, kernels_, plan_, layers_);
  normalisations_.resize(plan_.n_layers);
}

void Trunk::reserve(int n_threads) {
  while (static_cast<int>(scratch_.size()) < n_threads) scratch_.push_back(scratch_memory(plan_));
}

// ---- packing ----

void Trunk::pack_weights(const Arrays& weights) {
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
    const Scratch s = scratch_in(plan_, scratch_[member]);
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
    const Scratch s = scratch_in(plan_, scratch_[member]);
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
    const Scratch s = scratch_in(plan_, scratch_[member]);
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
