#include "isa/kernels.h"

namespace bertd {

const Kernels* find_kernels(std::string_view isa) {
  const bool any = isa == "auto";
#if defined(__x86_64__)
  // What the system lets a program use, AVX's registers that is, is asked for here as well.
  const bool has_avx512 =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni");
  if ((any || isa == amx.isa) && has_avx512 && int8_tiles()) return &amx;
  if ((any || isa == avx512.isa) && has_avx512) return &avx512;
  if ((any || isa == avx2.isa) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return &avx2;
  }
#endif
  return isa == portable.isa ? &portable : nullptr;
}

}  // namespace bertd
