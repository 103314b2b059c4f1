// Weights of int8 as the kernels read them, packed once for all sessions of the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "isa/kernels.h"
#include "kernels/int8_product.h"

namespace bertd {

// A linear layer's constants, as the graph has them.
struct Int8Constants {
  size_t inputs;
  size_t outputs;
  const int8_t* levels;        // [inputs, outputs]
  const float* weight_scales;  // [outputs]
  const float* bias;           // [outputs], or null
  float row_scale;             // float value of one level of the rows
  int row_zero;                // their level of 0.0
};

class PackedWeight {
 public:
  // The weight as kernels read it; the one that exists already, if it is the same.
  static std::shared_ptr<const PackedWeight> of(const Int8Constants& constants,
                                                const Kernels& kernels);

  Int8Weight view() const;
  size_t panels() const { return scales_.size() / panel_; }

 private:
  PackedWeight(const Int8Constants& constants, const Kernels& kernels);
  bool operator==(const PackedWeight& other) const;
  uint64_t hash() const;
  // Takes second groups out of pairs that need more than 16 bits, and keeps them as extra ones.
  void set_apart();
  bool fits(const int8_t* pair) const;

  struct Free {
    void operator()(int8_t* bytes) const { operator delete[](bytes, std::align_val_t(64)); }
  };

  size_t inputs_;
  size_t outputs_;
  size_t panel_;
  size_t bytes_;
  std::unique_ptr<int8_t[], Free> levels_;
  std::vector<int8_t> extra_;
  std::vector<uint32_t> places_;
  std::vector<uint32_t> ends_;
  std::vector<int32_t> offsets_;
  std::vector<float> scales_;
  std::vector<float> biases_;
};

}  // namespace bertd
