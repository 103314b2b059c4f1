// How sequences lie in a packed batch, and where a job computes for a moment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "ort/op.h"

namespace bertd {

// cu_seqlens, int64 [sequences + 1]: sequence s has the rows from cu_seqlens[s] to the next.
class Sequences {
 public:
  // Throws ort::Error where the bounds do not rise from 0 to rows.
  Sequences(const ort::Tensor& bounds, size_t rows) {
    if (bounds.type != ort::Type::int64 || bounds.elements() < 2) {
      throw ort::Error("cu_seqlens must be int64 with two entries at least");
    }
    bounds_ = bounds.as<int64_t>();
    count_ = bounds.elements() - 1;
    bool rises = bounds_[0] == 0 && bounds_[count_] == static_cast<int64_t>(rows);
    for (size_t s = 0; s < count_; ++s) rises = rises && bounds_[s] < bounds_[s + 1];
    if (!rises) {
      throw ort::Error("cu_seqlens must rise from 0 to the batch's " + std::to_string(rows) +
                       " rows");
    }
  }

  size_t count() const { return count_; }
  size_t begin(size_t sequence) const { return static_cast<size_t>(bounds_[sequence]); }
  size_t length(size_t sequence) const { return begin(sequence + 1) - begin(sequence); }

 private:
  const int64_t* bounds_;
  size_t count_;
};

// Floats for one job, which a thread keeps for its next one; aligned to a line of the cache.
inline float* scratch_floats(size_t count) {
  struct Free {
    void operator()(float* floats) const { operator delete[](floats, std::align_val_t(64)); }
  };
  thread_local std::unique_ptr<float[], Free> kept;
  thread_local size_t size = 0;
  if (count > size) {
    kept.reset();
    size = 0;
    kept.reset(static_cast<float*>(operator new[](count * sizeof(float), std::align_val_t(64))));
    size = count;
  }
  return kept.get();
}

}  // namespace bertd
