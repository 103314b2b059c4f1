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
  void (*mean)(const Rows&);
  void (*maximum)(const Rows&);
  void (*weighted_mean)(const Rows&);
  size_t int8_panel;  // columns of a panel of weights
  void (*int8_product)(const Int8Product&);
  void (*fp32_product)(const Fp32Product&);
  void (*to_levels)(const RowsToLevels&);
  void (*norm)(const NormedRows&);
};

extern const Kernels portable;  // plain loops: any CPU; the tests' other implementation
#if defined(__x86_64__)
extern const Kernels avx2;    // AVX2 and FMA
extern const Kernels avx512;  // AVX-512 F, BW, DQ, VL and VNNI
#endif

// The table of that name if this CPU can run it, else null; "auto" is the fastest one that is
// faster than stock operators, null where there is none.
const Kernels* find_kernels(std::string_view isa);

}  // namespace bertd
