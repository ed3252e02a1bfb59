// The order of passes, and what is done serially between them.
#include "trunk.h"

#include <algorithm>
#include <cmath>

#include "team.h"

namespace stapes {

Trunk::Trunk(const Shape& shape) : shape_(shape), kernels_(choose_kernels()) {
  memory_ = lay_out(shape, true, kernels_, plan_, layers_);
  normalisations_.resize(plan_.n_layers);
}

void Trunk::reserve(int n_threads) {
  while (static_cast<int>(workspaces_.size()) < n_threads) workspaces_.push_back(workspace(plan_));
}

// ---- between the passes ----

double Trunk::total(int64_t at) const {
  double sum = 0;
  for (int unit = 0; unit < plan_.n_units; unit++)
    sum += plan_.partial[unit * plan_.partial_size + at];
  return sum;
}

// Mean and variance of the batch from those of the units (Chan, Golub and LeVeque, 1983).
void Trunk::combine_statistics(int i, const float* betas, double epsilon, float* mean,
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
    variance[c] = static_cast<float>(v);
    norm.mean[c] = m;
    norm.rstd[c] = rstd;
    a.rstd[c] = static_cast<float>(rstd);
    a.mean_rstd[c] = static_cast<float>(m * rstd);
    a.scale[c] = static_cast<float>(norm.gamma[c] * rstd);
    a.shift[c] = static_cast<float>(betas[c] - m * norm.gamma[c] * rstd);
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

void Trunk::forward(const float* x, const float* parameters, double epsilon, int n_threads,
                    float* pooled, float* mean, float* variance) {
  const float *gammas = parameters + plan_.n_weights, *betas = gammas + plan_.n_channels;
  pack_weights(plan_, parameters);
  for (int i = 0; i < plan_.n_layers; i++) {
    Normalisation& norm = normalisations_[i];
    const size_t c = layers_[i].c_out;
    norm.gamma.assign(gammas + layers_[i].channels_at, gammas + layers_[i].channels_at + c);
    for (auto* v : {&norm.mean, &norm.rstd, &norm.sum_g, &norm.sum_gx}) v->assign(c, 0.0);
  }
  reserve(n_threads);
  Team::run(n_threads, [&](Team::Member& member) {
    const Scratch& s = workspaces_[member.index].scratch;
    for (int i = 0; i < plan_.n_layers; i++) {
      const int64_t at = layers_[i].channels_at;
      member.phase(
          plan_.n_units,
          [&](int unit) {
            if (i > 0) return kernels_.forward(plan_, i, unit, s);
            for (int b = unit_begin(plan_, unit); b < unit_begin(plan_, unit + 1); b++)
              kernels_.pack(plan_, b, x + int64_t(b) * shape_.length, 0.0f, 1.0f);
            kernels_.first_statistics(plan_, unit, s);
          },
          [&] { combine_statistics(i, betas + at, epsilon, mean + at, variance + at); });
    }
    member.phase(
        plan_.n_units,
        [&](int unit) {
          const int64_t first = unit_begin(plan_, unit);
          kernels_.pool(plan_, unit, s, pooled + first * layers_.back().c_out);
        },
        [] {});
  });
}

void Trunk::backward(const float* d_pooled, int n_threads, float* gradients) {
  reserve(n_threads);
  const int top = plan_.n_layers - 1;
  Team::run(n_threads, [&](Team::Member& member) {
    const Scratch& s = workspaces_[member.index].scratch;
    for (int i = top + 1; i >= 1; i--)
      member.phase(
          plan_.n_units,
          [&](int unit) {
            if (i > top) return kernels_.top_gradient(plan_, unit, s, d_pooled);
            kernels_.backward(plan_, i, unit, s);
          },
          [&] {
            combine_sums(i - 1);
            if (i <= top) combine_weights(i, gradients + layers_[i].weights_at);
            if (i == 1) first_weights(gradients);
          });
  });
  float *d_gamma = gradients + plan_.n_weights, *d_beta = d_gamma + plan_.n_channels;
  for (const Normalisation& norm : normalisations_) {
    for (const double sum : norm.sum_gx) *d_gamma++ = static_cast<float>(sum);
    for (const double sum : norm.sum_g) *d_beta++ = static_cast<float>(sum);
  }
}

}  // namespace stapes
