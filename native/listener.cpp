#include "listener.h"

#include <algorithm>
#include <atomic>

#include "team.h"

namespace stapes {

Listener::Listener(const Shape& shape) : shape_(shape), kernels_(choose_kernels()) {
  memory_ = lay_out(shape_, false, kernels_, plan_, layers_);
  for (int i = 0; i < shape_.batch; i++) workspaces_.push_back(workspace(plan_));
}

void Listener::set(const float* parameters) {
  pack_weights(plan_, parameters);
  for (const Layer& a : layers_)
    std::copy_n(parameters + plan_.n_weights + a.channels_at, a.c_out, a.shift);
}

void Listener::run(const std::vector<Stretch>& stretches) {
  std::atomic<size_t> next{0};
  const int n_threads = std::clamp<int>(static_cast<int>(stretches.size()), 1, shape_.batch);
  std::vector<std::vector<Layer>> own(n_threads, layers_);  // stretches differ in length
  Team::run(n_threads, [&](Team::Member& member) {
    Plan plan = plan_;
    plan.layers = own[member.index].data();
    const Scratch& s = workspaces_[member.index].scratch;
    for (size_t i; (i = next.fetch_add(1)) < stretches.size();) {
      set_length(plan, shape_.stretch(stretches[i].n_segments));
      kernels_.infer(plan, member.index, stretches[i], s);
    }
  });
}

}  // namespace stapes
