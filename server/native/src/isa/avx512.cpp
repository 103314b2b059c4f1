// Compiled with -mavx512f and its kin: see isa/avx2.cpp for what may not stand here.
#include "isa/table.h"
#include "isa/vector_avx512.h"
#include "kernels/int8_tiles.h"
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

constexpr Kernels with_tiles(Kernels table) {
  table.int8_block_rows = 128;
  table.int8_product = Int8Tiles<Avx512Vector>::run;
  return table;
}

}  // namespace

constexpr Kernels avx512 = with_bf16(table_of<Avx512Vector>("avx512"));
constexpr Kernels amx = with_tiles(with_bf16(table_of<Avx512Vector>("amx")));

}  // namespace bertd
