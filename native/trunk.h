// The trunk in training: blocks of convolution, normalisation and ReLU, then the mean over time.
#pragma once
#include <cstdint>
#include <vector>

#include "layout.h"

namespace stapes {

class Trunk {
 public:
  // Throws std::invalid_argument where a number is out of range, std::bad_alloc.
  explicit Trunk(const Shape& shape);

  // All weights, then all gammas, then all betas.
  int64_t n_parameters() const { return plan_.n_weights + 2 * plan_.n_channels; }

  // x [batch][length] -> pooled [batch][c]; mean and variance of every layer's y, one after another.
  void forward(const float* x, const float* parameters, double epsilon, int n_threads,
               float* pooled, float* mean, float* variance);

  // d_pooled [batch][c] -> gradients of the parameters; only after forward.
  void backward(const float* d_pooled, int n_threads, float* gradients);

  const Shape& shape() const { return shape_; }
  const Plan& plan() const { return plan_; }

 private:
  struct Normalisation {
    std::vector<double> gamma, mean, rstd, sum_g, sum_gx;
  };

  void reserve(int n_threads);
  void combine_statistics(int layer, const float* betas, double epsilon, float* mean, float* var);
  void combine_sums(int layer);
  void combine_weights(int layer, float* d_weights) const;
  void first_weights(float* d_weights) const;
  double total(int64_t at) const;

  Shape shape_;
  const Kernels& kernels_;
  Plan plan_{};
  std::vector<Layer> layers_;
  std::vector<Normalisation> normalisations_;
  Memory memory_;
  std::vector<Workspace> workspaces_;
};

}  // namespace stapes
