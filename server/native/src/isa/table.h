// The table of a vector type: what a file isa/NAME.cpp gives.
#pragma once

#include "isa/kernels.h"
#include "kernels/attention.h"
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
  return table;
}

}  // namespace bertd
