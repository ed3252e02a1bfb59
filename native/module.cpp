// stapes._native: checks every array, then works without the interpreter's lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>

#include "listener.h"
#include "team.h"
#include "trunk.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Input = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Outputs64 = nb::ndarray<double, nb::c_contig, nb::device::cpu>;
using Input64 = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using Places = nb::ndarray<const int64_t, nb::c_contig, nb::device::cpu>;
using Ints = std::vector<int>;

template <class Array>
void check(const Array& array, const char* name, std::initializer_list<int64_t> wanted) {
  bool same = array.ndim() == wanted.size();
  std::string found, text;
  for (size_t i = 0; i < array.ndim(); i++)
    found += (i ? ", " : "") + std::to_string(array.shape(i));
  size_t i = 0;
  for (const int64_t n : wanted) {
    same = same && static_cast<int64_t>(array.shape(i)) == n;
    text += (i++ ? ", " : "") + std::to_string(n);
  }
  if (!same)
    throw std::invalid_argument(std::string(name) + " has shape [" + found + "], wanted [" + text +
                                "]");
}

constexpr int MAX_THREADS = 256;

// As many threads as were asked for, or as there may be.
int allowed(int n_threads) {
  if (n_threads < 1)
    throw std::invalid_argument("n_threads is " + std::to_string(n_threads) + ", wanted 1 or more");
  return std::min(n_threads, MAX_THREADS);
}

// Scratch memory for one forward pass and its backward pass, at one shape.
class Trainer {
 public:
  Trainer(int batch, int length, Ints channels, Ints kernels, Ints strides)
      : trunk_({batch, length, channels, kernels, strides}) {}

  void forward(const Input& x, const Input& parameters, double epsilon, int n_threads,
               const Output& pooled, const Output& mean, const Output& variance) {
    const stapes::Shape& shape = trunk_.shape();
    check(x, "x", {shape.batch, shape.length});
    check(parameters, "parameters", {trunk_.n_parameters()});
    check(pooled, "pooled", {shape.batch, shape.channels.back()});
    check(mean, "mean", {trunk_.plan().n_channels});
    check(variance, "variance", {trunk_.plan().n_channels});
    n_threads = allowed(n_threads);
    if (!(epsilon >= 0)) throw std::invalid_argument("epsilon must not be negative");
    nb::gil_scoped_release unlocked;
    std::lock_guard<std::mutex> alone(mutex_);
    ready_ = false;
    trunk_.forward(x.data(), parameters.data(), epsilon, n_threads, pooled.data(), mean.data(),
                   variance.data());
    ready_ = true;
  }

  void backward(const Input& d_pooled, int n_threads, const Output& gradients) {
    check(d_pooled, "d_pooled", {trunk_.shape().batch, trunk_.shape().channels.back()});
    check(gradients, "gradients", {trunk_.n_parameters()});
    n_threads = allowed(n_threads);
    nb::gil_scoped_release unlocked;
    std::lock_guard<std::mutex> alone(mutex_);
    if (!ready_) throw std::invalid_argument("backward must follow a forward pass, once");
    ready_ = false;
    trunk_.backward(d_pooled.data(), n_threads, gradients.data());
  }

 private:
  stapes::Trunk trunk_;
  std::mutex mutex_;
  bool ready_ = false;
};

// A network for inference, at one hop between segments.
class Listener {
 public:
  Listener(int length, Ints channels, Ints kernels, Ints strides, const Input& parameters, int hop,
           int n_segments, int n_threads)
      : listener_({allowed(n_threads), length, channels, kernels, strides, hop, n_segments}) {
    check(parameters, "parameters", {listener_.n_parameters()});
    listener_.set(parameters.data());
  }

  // Stretches of x [T]: their first samples, numbers of segments, and what makes of a sample x
  // scale * (x - offset).
  void run(const Input& x, const std::vector<int64_t>& starts, const Ints& counts,
           const std::vector<float>& offsets, const std::vector<float>& scales,
           const Output& pooled, const std::optional<Output>& frames) {
    const stapes::Shape& shape = listener_.shape();
    const stapes::Layer& last = listener_.last();
    const int64_t length = static_cast<int64_t>(x.size());
    const size_t n_stretches = starts.size();
    if (counts.size() != n_stretches || offsets.size() != n_stretches ||
        scales.size() != n_stretches)
      throw std::invalid_argument("starts, counts, offsets and scales must be equally many");
    std::vector<stapes::Stretch> stretches;
    int64_t n = 0;
    for (size_t i = 0; i < n_stretches; n += counts[i++]) {
      const int64_t start = starts[i], count = counts[i];
      if (count < 1 || count > (frames ? 1 : shape.n_segments) || start < 0 ||
          start > length - shape.stretch(static_cast<int>(count)))
        throw std::invalid_argument("stretch " + std::to_string(i) + " lies outside of x");
      stretches.push_back({x.data() + start, counts[i], offsets[i], scales[i],
                           pooled.data() + n * last.c_out,
                           frames ? frames->data() + n * last.segment_n * last.c_out : nullptr});
    }
    check(pooled, "pooled", {n, last.c_out});
    if (frames) check(*frames, "frames", {n, last.segment_n, last.c_out});
    nb::gil_scoped_release unlocked;
    std::lock_guard<std::mutex> alone(mutex_);
    listener_.run(stretches);
  }

  bool shares() const { return listener_.shares(); }

 private:
  stapes::Listener listener_;
  std::mutex mutex_;
};

template <class Row>
void each_row(int64_t n_rows, int n_threads, Row&& row) {
  nb::gil_scoped_release unlocked;
  stapes::Team::run(std::min<int>(n_threads, n_rows), [&](stapes::Team::Member& member) {
    member.phase(static_cast<int>(n_rows), row, [] {});
  });
}

constexpr int64_t WORTH_A_THREAD = 1 << 17;  // samples to describe

void describe(const Input& x, int n_threads, const Outputs64& means, const Outputs64& squares,
              const Output& peaks) {
  if (x.ndim() != 2) throw std::invalid_argument("x must have two axes");
  const int64_t n = static_cast<int64_t>(x.shape(0)), length = static_cast<int64_t>(x.shape(1));
  check(means, "means", {n});
  check(squares, "squares", {n});
  check(peaks, "peaks", {n});
  const int64_t most = std::min<int64_t>(allowed(n_threads), n * length / WORTH_A_THREAD);
  const int parts = static_cast<int>(std::max<int64_t>(most, 1));
  const stapes::Kernels& kernels = stapes::choose_kernels();
  each_row(parts, parts, [&](int i) {
    const int64_t first = n * i / parts, count = n * (i + 1) / parts - first;
    kernels.describe(x.data() + first * length, count, length, means.data() + first,
                     squares.data() + first, peaks.data() + first);
  });
}

void draw(const Input& sound, const Input64& firsts, const Input64& rates, int n_threads,
          const Output& out) {
  if (out.ndim() != 2) throw std::invalid_argument("out must have two axes");
  const int64_t n = static_cast<int64_t>(out.shape(0)), length = static_cast<int64_t>(out.shape(1));
  check(firsts, "firsts", {n});
  check(rates, "rates", {n});
  n_threads = allowed(n_threads);
  // Whole vectors are read: what lies behind the last sample wanted must be there, too.
  const double most = static_cast<double>(sound.size()) - 34, ahead = static_cast<double>(length);
  for (int64_t i = 0; i < n; i++)
    if (!(firsts.data()[i] >= 0 && rates.data()[i] > 0 &&
          firsts.data()[i] + rates.data()[i] * (ahead + 16) <= most))
      throw std::invalid_argument("segment " + std::to_string(i) + " lies outside of the sound");
  const stapes::Kernels& kernels = stapes::choose_kernels();
  each_row(n, n_threads, [&](int i) {
    kernels.draw(sound.data(), firsts.data()[i], rates.data()[i], length, out.data() + i * length);
  });
}

void vary(const Input& segments, const Places& partners, const Input& own, const Input& other,
          const Input& taps, const Input& noises, const Places& noise_starts,
          const Input& noise_levels, const Input& rms, float least_rms, int n_threads,
          const Output& out) {
  if (segments.ndim() != 2 || taps.ndim() != 2)
    throw std::invalid_argument("segments and taps must have two axes");
  const int64_t n = static_cast<int64_t>(segments.shape(0));
  const int64_t length = static_cast<int64_t>(segments.shape(1));
  const int64_t n_taps = static_cast<int64_t>(taps.shape(1));
  const std::pair<const char*, const Input*> numbers[] = {{"own", &own},
                                                          {"other", &other},
                                                          {"noise_levels", &noise_levels},
                                                          {"rms", &rms}};
  for (const auto& [name, values] : numbers) check(*values, name, {n});
  check(partners, "partners", {n});
  check(noise_starts, "noise_starts", {n});
  check(taps, "taps", {n, n_taps});
  check(out, "out", {n, length});
  n_threads = allowed(n_threads);
  if (n_taps % 2 == 0) throw std::invalid_argument("n_taps must be odd");
  const int64_t last = static_cast<int64_t>(noises.size()) - length;
  for (int64_t i = 0; i < n; i++)
    if (partners.data()[i] < 0 || partners.data()[i] >= n || noise_starts.data()[i] < 0 ||
        noise_starts.data()[i] > last)
      throw std::invalid_argument("row " + std::to_string(i) + " asks for what is not there");
  std::vector<double> means(n), squares(n);
  std::vector<float> peaks(n);
  const stapes::Variation v{length, n_taps, segments.data(), means.data(), squares.data(),
                            partners.data(), own.data(), other.data(), taps.data(), noises.data(),
                            noise_starts.data(), noise_levels.data(), rms.data(), least_rms,
                            out.data()};
  const stapes::Kernels& kernels = stapes::choose_kernels();
  const int most = static_cast<int>(std::min<int64_t>(n, n_threads)), count = static_cast<int>(n);
  std::vector<float> room(stapes::vary_room(v) * most);
  nb::gil_scoped_release unlocked;
  stapes::Team::run(most, [&](stapes::Team::Member& member) {
    member.phase(count, [&](int i) {
      kernels.describe(v.segments + i * length, 1, length, &means[i], &squares[i], &peaks[i]);
    }, [] {});
    member.phase(count, [&](int i) {
      kernels.vary(v, i, room.data() + stapes::vary_room(v) * member.index);
    }, [] {});
  });
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // what lives until the interpreter's end is no leak
  m.attr("kernels") = stapes::choose_kernels().name;
  nb::class_<Trainer>(m, "Trainer")
      .def(nb::init<int, int, Ints, Ints, Ints>(), "batch"_a, "length"_a, "channels"_a, "kernels"_a,
           "strides"_a)
      .def("forward", &Trainer::forward, "x"_a.noconvert(), "parameters"_a.noconvert(),
           "epsilon"_a, "n_threads"_a, "pooled"_a.noconvert(), "mean"_a.noconvert(),
           "variance"_a.noconvert())
      .def("backward", &Trainer::backward, "d_pooled"_a.noconvert(), "n_threads"_a,
           "gradients"_a.noconvert());
  nb::class_<Listener>(m, "Listener")
      .def(nb::init<int, Ints, Ints, Ints, const Input&, int, int, int>(), "length"_a,
           "channels"_a, "kernels"_a, "strides"_a, "parameters"_a.noconvert(), "hop"_a,
           "n_segments"_a, "n_threads"_a)
      .def("run", &Listener::run, "x"_a.noconvert(), "starts"_a, "counts"_a, "offsets"_a,
           "scales"_a, "pooled"_a.noconvert(), "frames"_a.noconvert().none())
      .def("shares", &Listener::shares);
  m.def("describe", &describe, "x"_a.noconvert(), "n_threads"_a, "means"_a.noconvert(),
        "squares"_a.noconvert(), "peaks"_a.noconvert());
  m.def("draw", &draw, "sound"_a.noconvert(), "firsts"_a.noconvert(), "rates"_a.noconvert(),
        "n_threads"_a, "out"_a.noconvert());
  m.def("vary", &vary, "segments"_a.noconvert(), "partners"_a.noconvert(), "own"_a.noconvert(),
        "other"_a.noconvert(), "taps"_a.noconvert(), "noises"_a.noconvert(),
        "noise_starts"_a.noconvert(), "noise_levels"_a.noconvert(), "rms"_a.noconvert(),
        "least_rms"_a, "n_threads"_a, "out"_a.noconvert());
}
