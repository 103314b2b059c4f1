// Compiled as isa/avx512.cpp is; tiles are assembly.
#include "isa/table.h"
#include "isa/vector_avx512.h"
#include "kernels/int8_tiles.h"

namespace bertd {
namespace {

constexpr Kernels with_tiles() {
  Kernels table = table_of<Avx512Vector>("amx");
  table.int8_product = Int8Tiles<Avx512Vector>::run;
  return table;
}

}  // namespace

constexpr Kernels amx = with_tiles();

}  // namespace bertd
