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
  int batch, length;  // of a segment in inference, of all examples in training
  std::vector<int> channels, kernels, strides;  // one a layer
  int hop = 0, n_segments = 1;                  // of the longest stretch
  int stretch(int n) const { return length + (n - 1) * hop; }
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

// Makes examples shorter than they were laid out for.
void set_length(Plan& plan, int length);

// Whether overlapping segments have frames in common in every layer, so that sharing them pays.
bool shares(const Plan& plan);

// Weights of all layers, one after another: [c_out][c_in][kernel] each.
void pack_weights(const Plan& plan, const float* weights);

// One thread's scratch memory, zero.
struct Workspace {
  Memory memory;
  Scratch scratch;
};
Workspace workspace(const Plan& plan);

}  // namespace stapes
