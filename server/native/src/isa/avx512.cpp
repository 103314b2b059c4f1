// Compiled with -mavx512f and its kin: see isa/avx2.cpp for what may not stand here.
#include "isa/table.h"
#include "isa/vector_avx512.h"

namespace bertd {

constexpr Kernels with_tiles(Kernels table) {
  table.attend_bf16 = attend_in_tiles;
  return table;
}

constexpr Kernels avx512 = with_tiles(table_of<Avx512Vector>("avx512"));

}  // namespace bertd
