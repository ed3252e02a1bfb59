// Which build of the kernels this processor can run.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace stapes {

const Kernels& choose_kernels() {
  const char* wanted = std::getenv("STAPES_KERNELS");
#if defined(__x86_64__)
  auto allowed = [&](const char* name) { return !wanted || !std::strcmp(wanted, name); };
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
  avx512 = avx512 && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx512 && allowed("avx512")) return kernels_avx512;
  if (avx2 && allowed("avx2")) return kernels_avx2;
#else
  (void)wanted;
#endif
  return kernels_baseline;  // SSE2 on x86-64, NEON on ARM
}

}  // namespace stapes
