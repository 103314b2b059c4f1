// Compiled with -mavx512f and its kin: see isa/avx2.cpp for what may not stand here.
#include "isa/table.h"
#include "isa/vector_avx512.h"
#include "kernels/tile_attention.h"

namespace bertd {
namespace {

// What a tile of 16 keys holds, or a few queries of first rows, takes no longer in fp32. Both
// numbers follow from the sequence's length.
void attend_bf16(const AttentionBlock& block) {
  if (block.keys <= 16 || block.queries < 8) {
    Attention<Avx512Vector>::run(block);
  } else {
    TileAttention::run(block);
  }
}

constexpr Kernels with_bf16(Kernels table) {
  table.attend_bf16 = attend_bf16;
  return table;
}

}  // namespace

constexpr Kernels avx512 = with_bf16(table_of<Avx512Vector>("avx512"));

}  // namespace bertd
