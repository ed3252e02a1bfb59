// stapes._native: checks every array, then works without the interpreter's lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

#include "trunk.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Input = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Inputs = std::vector<Input>;

template <class Array>
std::string describe(const Array& array) {
  std::string text = "[";
  for (size_t i = 0; i < array.ndim(); i++)
    text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + "]";
}

template <class Array>
void check(const Array& array, const std::string& name, std::initializer_list<int64_t> wanted) {
  bool same = array.ndim() == wanted.size();
  std::string text;
  size_t i = 0;
  for (const int64_t n : wanted) {
    same = same && static_cast<int64_t>(array.shape(i)) == n;
    text += (i++ ? ", " : "") + std::to_string(n);
  }
  if (!same)
    throw std::invalid_argument(name + " has shape " + describe(array) + ", wanted [" + text + "]");
}

int check_threads(int n_threads) {
  if (n_threads < 1 || n_threads > 256)
    throw std::invalid_argument("n_threads is " + std::to_string(n_threads) + ", wanted 1..256");
  return n_threads;
}

stapes::Arrays check_weights(const stapes::Trunk& trunk, const Inputs& weights) {
  if (static_cast<int>(weights.size()) != trunk.n_layers())
    throw std::invalid_argument("weights must have one array a layer");
  stapes::Arrays pointers;
  for (int i = 0; i < trunk.n_layers(); i++) {
    const stapes::Layer& layer = trunk.layer(i);
    check(weights[i], "weights[" + std::to_string(i) + "]",
          {layer.c_out, layer.c_in, layer.kernel});
    pointers.push_back(weights[i].data());
  }
  return pointers;
}

stapes::Arrays check_vectors(const stapes::Trunk& trunk, const Inputs& vectors,
                             const std::string& name) {
  if (static_cast<int>(vectors.size()) != trunk.n_layers())
    throw std::invalid_argument(name + " must have one array a layer");
  stapes::Arrays pointers;
  for (int i = 0; i < trunk.n_layers(); i++) {
    check(vectors[i], name + "[" + std::to_string(i) + "]", {trunk.layer(i).c_out});
    pointers.push_back(vectors[i].data());
  }
  return pointers;
}

// Scratch memory for one forward pass and its backward pass, at one shape.
class Trainer {
 public:
  Trainer(int batch, int length, std::vector<int> channels, std::vector<int> kernels,
          std::vector<int> strides)
      : trunk_({batch, length, channels, kernels, strides}, true) {
    for (int i = 0; i < trunk_.n_layers(); i++) {
      const stapes::Layer& layer = trunk_.layer(i);
      n_channels_ += layer.c_out;
      n_weights_ += int64_t(layer.c_out) * layer.c_in * layer.kernel;
    }
  }

  void forward(const Input& x, const Inputs& weights, const Inputs& gammas, const Inputs& betas,
               double epsilon, int n_threads, const Output& pooled, const Output& mean,
               const Output& variance) {
    const stapes::Shape& shape = trunk_.shape();
    check(x, "x", {shape.batch, shape.length});
    check(pooled, "pooled", {shape.batch, shape.channels.back()});
    check(mean, "mean", {n_channels_});
    check(variance, "variance", {n_channels_});
    const auto w = check_weights(trunk_, weights);
    const auto g = check_vectors(trunk_, gammas, "gammas");
    const auto b = check_vectors(trunk_, betas, "betas");
    check_threads(n_threads);
    if (!(epsilon >= 0)) throw std::invalid_argument("epsilon must not be negative");
    nb::gil_scoped_release unlocked;
    std::lock_guard<std::mutex> alone(mutex_);
    ready_ = false;
    trunk_.forward(x.data(), w, g, b, epsilon, n_threads, pooled.data(), mean.data(),
                   variance.data());
    ready_ = true;
  }

  // Gradients one after another: every layer's weights, then every gamma, then every beta.
  void backward(const Input& d_pooled, int n_threads, const Output& gradients) {
    const stapes::Shape& shape = trunk_.shape();
    check(d_pooled, "d_pooled", {shape.batch, shape.channels.back()});
    check(gradients, "gradients", {n_weights_ + 2 * n_channels_});
    check_threads(n_threads);
    std::vector<float*> w, g, b;
    float* at = gradients.data();
    for (int i = 0; i < trunk_.n_layers(); i++) {
      const stapes::Layer& layer = trunk_.layer(i);
      w.push_back(at);
      at += int64_t(layer.c_out) * layer.c_in * layer.kernel;
    }
    for (auto* vectors : {&g, &b})
      for (int i = 0; i < trunk_.n_layers(); at += trunk_.layer(i++).c_out) vectors->push_back(at);
    nb::gil_scoped_release unlocked;
    std::lock_guard<std::mutex> alone(mutex_);
    if (!ready_) throw std::invalid_argument("backward must follow a forward pass, once");
    ready_ = false;
    trunk_.backward(d_pooled.data(), n_threads, w, g, b);
  }

 private:
  stapes::Trunk trunk_;
  int64_t n_channels_ = 0, n_weights_ = 0;
  std::mutex mutex_;
  bool ready_ = false;
};

void infer(const Input& x, const Inputs& weights, const Inputs& biases, std::vector<int> strides,
           int n_threads, const Output& pooled, const std::optional<Output>& frames) {
  if (x.ndim() != 2) throw std::invalid_argument("x has shape " + describe(x) + ", wanted [n, t]");
  if (x.shape(1) > INT32_MAX / 4) throw std::invalid_argument("x is too long");
  stapes::Shape shape{check_threads(n_threads), static_cast<int>(x.shape(1)), {}, {}, strides};
  for (const Input& w : weights) {
    if (w.ndim() != 3) throw std::invalid_argument("weights must have three axes");
    shape.channels.push_back(static_cast<int>(w.shape(0)));
    shape.kernels.push_back(static_cast<int>(w.shape(2)));
  }
  const int64_t n = static_cast<int64_t>(x.shape(0));
  if (n < n_threads) shape.batch = n > 0 ? static_cast<int>(n) : 1;
  stapes::Trunk trunk(shape, false);
  const auto w = check_weights(trunk, weights);
  const auto b = check_vectors(trunk, biases, "biases");
  const stapes::Layer& last = trunk.layer(trunk.n_layers() - 1);
  check(pooled, "pooled", {n, last.c_out});
  if (frames) check(*frames, "frames", {n, last.n, last.c_out});
  nb::gil_scoped_release unlocked;
  trunk.infer(x.data(), n, w, b, pooled.data(), frames ? frames->data() : nullptr);
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // what lives until the interpreter's end is no leak
  m.attr("kernels") = stapes::choose_kernels().name;
  nb::class_<Trainer>(m, "Trainer")
      .def(nb::init<int, int, std::vector<int>, std::vector<int>, std::vector<int>>(), "batch"_a,
           "length"_a, "channels"_a, "kernels"_a, "strides"_a)
      .def("forward", &Trainer::forward, "x"_a.noconvert(), "weights"_a.noconvert(),
           "gammas"_a.noconvert(), "betas"_a.noconvert(), "epsilon"_a, "n_threads"_a,
           "pooled"_a.noconvert(), "mean"_a.noconvert(), "variance"_a.noconvert())
      .def("backward", &Trainer::backward, "d_pooled"_a.noconvert(), "n_threads"_a,
           "gradients"_a.noconvert());
  m.def("infer", &infer, "x"_a.noconvert(), "weights"_a.noconvert(), "biases"_a.noconvert(),
        "strides"_a, "n_threads"_a, "pooled"_a.noconvert(), "frames"_a.noconvert().none());
}
