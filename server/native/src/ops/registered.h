// Every operator of the library: a file of ops/ has a function add_…, and library.cpp calls it.
#pragma once

#include <string>
#include <vector>

#include "ort/op.h"

namespace bertd {

struct NamedOp {
  std::string name;
  const ort::OpTable* op;
};

template <class Kernel>
void add(const Kernels& kernels, std::vector<NamedOp>& ops) {
  ops.push_back({Kernel::name, new ort::Op<Kernel>(kernels)});
}

void add_attention(const Kernels& kernels, std::vector<NamedOp>& ops);
void add_fp32_linear(const Kernels& kernels, std::vector<NamedOp>& ops);
void add_int8_linear(const Kernels& kernels, std::vector<NamedOp>& ops);
void add_pooling(const Kernels& kernels, std::vector<NamedOp>& ops);

}  // namespace bertd
