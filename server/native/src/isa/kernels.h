// One table of functions for each instruction set, and the choice among them.
//
// A kernel is a template over a vector type (isa/vector_*.h); isa/NAME.cpp instantiates all of
// them for its type, is compiled with its flags alone, and gives a table. Functions of different
// tables may differ in their last bits; those of one never do, however work is split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bertd {

struct AttentionBlock;  // kernels/attention.h
struct Rows;            // kernels/pooling.h
struct Int8Product;     // kernels/int8_product.h
struct Fp32Product;     // kernels/fp32_product.h
struct RowsToLevels;    // kernels/levels.h
struct NormedRows;      // kernels/norm.h

struct Kernels {
  const char* isa;
  void (*attend)(const AttentionBlock&);
  void (*attend_bf16)(const AttentionBlock&);  // if bf16_tiles(); null where there is none
  void (*mean)(const Rows&);
  void (*maximum)(const Rows&);
  void (*weighted_mean)(const Rows&);
  size_t int8_panel;          // columns of a panel of weights
  bool int8_sums_of_16_bits;  // whether products of two groups are added in 16 bits
  size_t int8_block_rows;     // of a product's job: they share its weights
  void (*int8_product)(const Int8Product&);
  void (*fp32_product)(const Fp32Product&);
  void (*to_levels)(const RowsToLevels&);
  void (*norm)(const NormedRows&);
};

extern const Kernels portable;  // plain loops: any CPU; the tests' other implementation
#if defined(__x86_64__)
extern const Kernels avx2;    // AVX2 and FMA
extern const Kernels avx512;  // AVX-512 F, BW, DQ, VL and VNNI
extern const Kernels amx;     // the same, and products of int8 in AMX's tiles
#endif

// Whether this CPU has tiles, with products of bfloat16 or of int8, and the system lets this process
// use them, which is asked for at the first call.
bool bf16_tiles();
bool int8_tiles();

// The table of that name if this CPU can run it, else null; "auto" is the fastest one that is
// faster than stock operators, null where there is none.
const Kernels* find_kernels(std::string_view isa);

}  // namespace bertd
