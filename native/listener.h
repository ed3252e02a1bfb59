// The trunk in inference: normalisation is folded into weights and biases.
#pragma once
#include "layout.h"

namespace stapes {

class Listener {
 public:
  // `shape`: its batch is the number of threads; with the hop between segments and the most
  // segments of a stretch. Throws std::invalid_argument where a number is out of range,
  // std::bad_alloc.
  explicit Listener(const Shape& shape);

  // All weights, then all biases.
  int64_t n_parameters() const { return plan_.n_weights + plan_.n_channels; }
  void set(const float* parameters);

  // Every stretch, shared out over the threads.
  void run(const std::vector<Stretch>& stretches);

  const Shape& shape() const { return shape_; }
  const Layer& last() const { return layers_.back(); }
  // Whether overlapping segments have anything in common.
  bool shares() const { return stapes::shares(plan_); }

 private:
  const Shape shape_;
  const Kernels& kernels_;
  Plan plan_{};
  std::vector<Layer> layers_;
  Memory memory_;
  std::vector<Workspace> workspaces_;  // one a thread
};

}  // namespace stapes
