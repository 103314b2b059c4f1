// Compiled with AVX-512's flags and -mavx512bf16: see isa/avx2.cpp for what may not stand here.
#include "isa/kernels.h"
#include "kernels/tile_attention.h"

namespace bertd {

void attend_in_tiles(const AttentionBlock& block) { TileAttention::run(block); }

}  // namespace bertd
