// The table of a vector type: what a file isa/NAME.cpp gives.
#pragma once

#include "isa/kernels.h"
#include "kernels/attention.h"
#include "kernels/fp32_product.h"
#include "kernels/int8_product.h"
#include "kernels/levels.h"
#include "kernels/norm.h"
#include "kernels/pooling.h"

namespace bertd {

template <class V>
constexpr Kernels table_of(const char* isa) {
  Kernels table{};
  table.isa = isa;
  table.attend = Attention<V>::run;
  table.mean = Pooling<V>::mean;
  table.maximum = Pooling<V>::maximum;
  table.weighted_mean = Pooling<V>::weighted_mean;
  table.int8_panel = Int8Products<V>::panel;
  table.int8_sums_of_16_bits = V::int8_sums_of_16_bits;
  table.int8_block_rows = 32;
  table.int8_product = Int8Products<V>::run;
  table.fp32_product = Fp32Products<V>::run;
  table.to_levels = Levels<V>::run;
  table.norm = Norm<V>::run;
  return table;
}

}  // namespace bertd
