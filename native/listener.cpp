#include "listener.h"

#include <algorithm>
#include <atomic>

#include "team.h"

namespace stapes {

Listener::Listener(const Shape& shape, const Arrays& weights, const Arrays& biases, int n_threads)
    : shape_(shape), kernels_(choose_kernels()), members_(n_threads) {
  for (Member& m : members_) {
    m.memory = lay_out(shape_, false, kernels_, m.plan, m.layers);
    m.scratch = scratch_memory(m.plan);
    pack_weights(m.plan, weights);
    for (size_t i = 0; i < biases.size(); i++)
      std::copy_n(biases[i], m.layers[i].c_out, m.layers[i].shift);
  }
}

void Listener::run(const std::vector<Stretch>& stretches) {
  std::atomic<size_t> next{0};
  const int n_threads = static_cast<int>(std::min(members_.size(), stretches.size()));
  Team::run(n_threads, [&](Team&, int member) {
    Member& m = members_[member];
    const Scratch s = scratch_in(m.plan, m.scratch);
    for (size_t i; (i = next.fetch_add(1)) < stretches.size();) {
      set_length(m.plan, shape_.stretch(stretches[i].n_segments));
      kernels_.infer(m.plan, 0, stretches[i], s);
    }
  });
}

}  // namespace stapes
