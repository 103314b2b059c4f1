// The tests: a function of the kernels each, which throws where something is wrong.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fake_runtime.h"

namespace bertd::tests {

struct Test {
  const char* name;
  void (*run)(const Kernels&);
};

void attention_in_every_split(const Kernels&);
void local_attention_in_every_split(const Kernels&);
void first_attention_in_every_split(const Kernels&);
void biased_attention_in_every_split(const Kernels&);
void bf16_attention_in_every_split(const Kernels&);
void pooling_in_every_split(const Kernels&);
void what_does_not_fit(const Kernels&);
void fp32_products(const Kernels&);
void fp32_layer_in_every_split(const Kernels&);
void int8_kernels(const Kernels&);
void int8_layer_in_every_split(const Kernels&);

inline std::vector<Test> all() {
  return {
      {"attention in every split", attention_in_every_split},
      {"local attention in every split", local_attention_in_every_split},
      {"first attention in every split", first_attention_in_every_split},
      {"biased attention in every split", biased_attention_in_every_split},
      {"bf16 attention in every split", bf16_attention_in_every_split},
      {"pooling in every split", pooling_in_every_split},
      {"what does not fit", what_does_not_fit},
      {"fp32 products", fp32_products},
      {"fp32 layer in every split", fp32_layer_in_every_split},
      {"int8 kernels", int8_kernels},
      {"int8 layer in every split", int8_layer_in_every_split},
  };
}

inline std::vector<float> normal(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::normal_distribution<float> numbers;
  std::vector<float> result(count);
  for (float& number : result) number = numbers(random);
  return result;
}

// What an add_… of ops/registered.h adds, made once: operators are never destroyed.
using Adder = void (*)(const Kernels&, std::vector<NamedOp>&);
inline const std::vector<NamedOp>& made(const Kernels& kernels, Adder adder) {
  static auto& kept = *new std::map<std::pair<const Kernels*, Adder>, std::vector<NamedOp>>;
  auto& ops = kept[{&kernels, adder}];
  if (ops.empty()) adder(kernels, ops);
  return ops;
}

inline const ort::OpTable& op_named(const std::vector<NamedOp>& ops, const std::string& name) {
  for (const NamedOp& op : ops) {
    if (op.name == name) return *op.op;
  }
  throw std::runtime_error("no operator " + name);
}

inline void check_close(float got, double want, const char* what, double absolute = 2e-6) {
  if (!(std::abs(got - want) <= absolute + 2e-5 * std::abs(want))) {
    throw std::runtime_error(std::string(what) + " gives " + std::to_string(got) + " for " +
                             std::to_string(want));
  }
}

inline void check_same(const std::vector<float>& a, const std::vector<float>& b, size_t offset,
                       const char* what) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[offset + i]) throw std::runtime_error(std::string(what) + ": bits differ");
  }
}

inline std::vector<int64_t> bounds(const std::vector<size_t>& lengths) {
  std::vector<int64_t> result{0};
  for (size_t length : lengths) result.push_back(result.back() + static_cast<int64_t>(length));
  return result;
}

}  // namespace bertd::tests
