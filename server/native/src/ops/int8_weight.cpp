#include "ops/int8_weight.h"

#include <cstring>
#include <map>
#include <mutex>
#include <new>

namespace bertd {
namespace {

constexpr size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

PackedWeight::PackedWeight(const Int8Constants& from, const Kernels& kernels)
    : inputs_(from.inputs), outputs_(from.outputs), panel_(kernels.int8_panel) {
  const size_t panel = panel_;
  const size_t columns = round_up(outputs_, panel);
  const size_t height = round_up(inputs_, int8_group);
  bytes_ = columns * height;
  levels_.reset(static_cast<int8_t*>(operator new[](bytes_, std::align_val_t(64))));
  std::memset(levels_.get(), 0, bytes_);
  offsets_.resize(columns);
  scales_.resize(columns);
  biases_.resize(columns);
  for (size_t input = 0; input < inputs_; ++input) {
    const size_t place = input / int8_group * panel * int8_group + input % int8_group;
    for (size_t output = 0; output < outputs_; ++output) {
      const int8_t level = from.levels[input * outputs_ + output];
      const size_t column = output / panel * panel * height + output % panel * int8_group;
      levels_[column + place] = level;
      offsets_[output] -= from.row_zero * level;
    }
  }
  if (kernels.int8_sums_of_16_bits) {
    set_apart();
  } else {
    ends_.assign(panels(), 0);
  }
  for (size_t output = 0; output < outputs_; ++output) {
    scales_[output] = from.row_scale * from.weight_scales[output];
    biases_[output] = from.bias == nullptr ? 0.0f : from.bias[output];
  }
}

void PackedWeight::set_apart() {
  const size_t group = panel_ * int8_group;
  const size_t panel_bytes = panel_ * round_up(inputs_, int8_group);
  for (size_t panel = 0; panel < panels(); ++panel) {
    int8_t* pair = levels_.get() + panel * panel_bytes;
    for (size_t input = 0; input + int8_pair <= inputs_; input += int8_pair, pair += 2 * group) {
      if (fits(pair)) continue;
      extra_.insert(extra_.end(), pair + group, pair + 2 * group);
      places_.push_back(static_cast<uint32_t>(input + int8_group));
      std::memset(pair + group, 0, group);
    }
    ends_.push_back(static_cast<uint32_t>(places_.size()));
  }
}

// Whether no rows can take a sum of four products, two of each group, out of 16 bits: for that,
// weights of one sign must not add up to more than 128, since 255 * 128 < 2^15.
bool PackedWeight::fits(const int8_t* pair) const {
  constexpr int most = 128;
  const int8_t* second = pair + panel_ * int8_group;
  for (size_t at = 0; at < panel_ * int8_group; at += 2) {
    int above = 0, below = 0;
    for (const int level : {pair[at], pair[at + 1], second[at], second[at + 1]}) {
      (level > 0 ? above : below) += level;
    }
    if (above > most || below < -most) return false;
  }
  return true;
}

Int8Weight PackedWeight::view() const {
  return {inputs_,        outputs_,     levels_.get(),   extra_.data(), places_.data(),
          ends_.data(),   offsets_.data(), scales_.data(), biases_.data()};
}

bool PackedWeight::operator==(const PackedWeight& other) const {
  return inputs_ == other.inputs_ && outputs_ == other.outputs_ && panel_ == other.panel_ &&
         std::memcmp(levels_.get(), other.levels_.get(), bytes_) == 0 &&
         extra_ == other.extra_ && places_ == other.places_ && offsets_ == other.offsets_ && scales_ == other.scales_ && biases_ == other.biases_;
}

uint64_t PackedWeight::hash() const {
  uint64_t hash = 14695981039346656037u;  // FNV-1a, eight bytes at a time
  for (size_t at = 0; at + sizeof(uint64_t) <= bytes_; at += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, levels_.get() + at, sizeof word);
    hash = (hash ^ word) * 1099511628211u;
  }
  return hash;
}

std::shared_ptr<const PackedWeight> PackedWeight::of(const Int8Constants& from,
                                                     const Kernels& kernels) {
  static std::mutex looking;  // while sessions are made; runs do not come here
  static auto& made = *new std::multimap<uint64_t, std::weak_ptr<const PackedWeight>>;
  std::shared_ptr<const PackedWeight> packed(new PackedWeight(from, kernels));
  const uint64_t hash = packed->hash();
  const std::lock_guard<std::mutex> held(looking);
  auto [at, end] = made.equal_range(hash);
  while (at != end) {
    const auto other = at->second.lock();
    if (other != nullptr && *other == *packed) return other;
    at = other == nullptr ? made.erase(at) : std::next(at);
  }
  made.emplace(hash, packed);
  return packed;
}

}  // namespace bertd
