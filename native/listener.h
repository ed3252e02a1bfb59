// The trunk in inference: normalisation is folded into weights and biases.
#pragma once
#include "layout.h"

namespace stapes {

class Listener {
 public:
  // `shape`: of a batch of one, with the hop between segments and the most segments of a stretch.
  // Throws std::invalid_argument where a number is out of range, std::bad_alloc.
  Listener(const Shape& shape, const Arrays& weights, const Arrays& biases, int n_threads);

  // Every stretch, shared out over the threads.
  void run(const std::vector<Stretch>& stretches);

  const Shape& shape() const { return shape_; }
  const Layer& layer(int i) const { return members_.front().layers[i]; }
  // Whether overlapping segments have anything in common.
  bool shares() const { return stapes::shares(members_.front().plan); }

 private:
  // What one thread works in: its stretches may differ in length from the others'.
  struct Member {
    Plan plan{};
    std::vector<Layer> layers;
    Memory memory, scratch;
  };

  const Shape shape_;
  const Kernels& kernels_;
  std::vector<Member> members_;
};

}  // namespace stapes
