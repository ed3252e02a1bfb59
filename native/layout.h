// Sizes a network's memory and lays it out.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels.h"

namespace stapes {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

struct Shape {
  int batch, length;
  std::vector<int> channels, kernels, strides;  // one a layer
};

// Hands out pieces of one allocation; without one it only measures.
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

// Fills in the plan and its layers; the memory returned is zero and must outlive them.
// Throws std::invalid_argument where a number is out of range, std::bad_alloc.
Memory lay_out(const Shape& shape, bool training, const Kernels& kernels, Plan& plan,
               std::vector<Layer>& layers);

// One thread's scratch memory, zero.
Memory scratch_memory(const Plan& plan);
Scratch scratch_in(const Plan& plan, const Memory& memory);

}  // namespace stapes
