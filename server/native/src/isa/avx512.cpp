// Compiled with -mavx512f and its kin: see isa/avx2.cpp for what may not stand here.
#include "isa/table.h"
#include "isa/vector_avx512.h"

namespace bertd {

constexpr Kernels avx512 = table_of<Avx512Vector>("avx512");

}  // namespace bertd
