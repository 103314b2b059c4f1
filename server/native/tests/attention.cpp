// Attention against plain loops in double, and the same bits alone, together, and on threads.
#include <algorithm>

#include "tests.h"

namespace bertd::tests {
namespace {

struct Case {
  const char* op;
  std::vector<size_t> lengths;
  size_t heads, size;
  int64_t window;  // below 0: none
  bool biased = false;
  double error = 2e-6;  // at most, of values about 1
};

constexpr size_t longest = 1030;  // tokens for which a bias has distances

std::vector<float> rows(const std::vector<float>& all, size_t from, size_t to, size_t width) {
  return {all.begin() + static_cast<ptrdiff_t>(from * width),
          all.begin() + static_cast<ptrdiff_t>(to * width)};
}

// The weighted values of one query and head.
void reference(const float* q, const float* k, const float* v, size_t keys, size_t width,
               size_t size, double scale, const std::vector<bool>& seen,
               const std::vector<double>& bias, std::vector<double>& out) {
  std::vector<double> weights(keys, 0.0);
  double top = -1e300, total = 0;
  for (size_t key = 0; key < keys; ++key) {
    for (size_t i = 0; i < size; ++i) weights[key] += double(q[i]) * k[key * width + i];
    weights[key] = weights[key] * scale + bias[key];
    if (seen[key]) top = std::max(top, weights[key]);
  }
  for (size_t key = 0; key < keys; ++key) {
    weights[key] = seen[key] ? std::exp(weights[key] - top) : 0;
    total += weights[key];
  }
  out.assign(size, 0.0);
  for (size_t key = 0; key < keys; ++key) {
    for (size_t i = 0; i < size; ++i) out[i] += weights[key] / total * v[key * width + i];
  }
}

std::vector<float> attend(const ort::OpTable& op, const Case& c, size_t threads,
                          const std::vector<size_t>& lengths, const std::vector<float>& q,
                          const std::vector<float>& k, const std::vector<float>& v) {
  const int64_t width = static_cast<int64_t>(c.heads * c.size);
  ort::Info info;
  info.integers = {{"num_heads", static_cast<int64_t>(c.heads)}};
  if (c.window >= 0) info.integers["window"] = c.window;
  info.reals = {{"scale", 1 / std::sqrt(static_cast<float>(c.size))}};
  if (c.biased) {
    const std::vector<int64_t> sizes{static_cast<int64_t>(c.heads), 2 * int64_t(longest) - 1};
    info.constants.emplace(4, fake::floats(sizes, normal(4, c.heads * (2 * longest - 1))));
    info.inputs = 5;
  }
  ort::Context context;
  context.threads = threads;
  for (const auto* part : {&q, &k, &v}) {
    context.inputs.push_back(
        fake::floats({static_cast<int64_t>(part->size()) / width, width}, *part));
  }
  context.inputs.push_back(fake::integers(bounds(lengths)));
  return fake::run(op, info, context);
}

void check(const Kernels& kernels, const Case& c) {
  const ort::OpTable& op = op_named(made(kernels, add_attention), c.op);
  const bool first = c.op == std::string("PackedFirstAttention");
  const size_t width = c.heads * c.size, tokens = static_cast<size_t>(bounds(c.lengths).back());
  const auto k = normal(2, tokens * width), v = normal(3, tokens * width);
  const auto q = normal(1, (first ? c.lengths.size() : tokens) * width);
  const auto distances = normal(4, c.heads * (2 * longest - 1));
  const double scale = 1 / std::sqrt(static_cast<float>(c.size));

  const auto together = attend(op, c, 3, c.lengths, q, k, v);
  size_t begin = 0;
  for (size_t s = 0; s < c.lengths.size(); ++s) {
    const size_t length = c.lengths[s], end = begin + length;
    const size_t row = first ? s : begin, queries = first ? 1 : length;
    const auto alone = attend(op, c, 1, {length}, rows(q, row, row + queries, width),
                              rows(k, begin, end, width), rows(v, begin, end, width));
    check_same(alone, together, row * width, c.op);
    std::vector<double> want;
    for (size_t i = 0; i < queries; ++i) {
      std::vector<bool> seen(length);
      for (size_t key = 0; key < length; ++key) {
        seen[key] = c.window < 0 || std::abs(int64_t(key) - int64_t(i)) <= c.window;
      }
      for (size_t head = 0; head < c.heads; ++head) {
        const size_t column = head * c.size;
        std::vector<double> bias(length, 0.0);
        for (size_t key = 0; c.biased && key < length; ++key) {
          bias[key] = distances[head * (2 * longest - 1) + i + longest - 1 - key];
        }
        reference(&q[(row + i) * width + column], &k[begin * width + column],
                  &v[begin * width + column], length, width, c.size, scale, seen, bias,
                  want);
        for (size_t d = 0; d < c.size; ++d) {
          check_close(together[(row + i) * width + column + d], want[d], c.op, c.error);
        }
      }
    }
    begin = end;
  }
}

// Around every border of a tile, a vector and a block.
const std::vector<size_t> many = {1, 2, 3, 5, 6, 7, 8, 9, 13, 16, 17, 25, 193, 513, 1030};

void in_every_split(const Kernels& kernels, const char* op, std::initializer_list<int64_t> windows,
                    bool biased = false, double error = 2e-6) {
  for (int64_t window : windows) {
    for (auto [heads, size] : {std::pair<size_t, size_t>{1, 1}, {2, 7}, {3, 8}, {1, 20}, {2, 32}}) {
      check(kernels, {op, many, heads, size, window, biased, error});
    }
  }
}

}  // namespace

void attention_in_every_split(const Kernels& kernels) {
  in_every_split(kernels, "PackedAttention", {-1});
}
void local_attention_in_every_split(const Kernels& kernels) {
  in_every_split(kernels, "PackedLocalAttention", {0, 5, 64, 200});
}
void first_attention_in_every_split(const Kernels& kernels) {
  in_every_split(kernels, "PackedFirstAttention", {-1});
}

void biased_attention_in_every_split(const Kernels& kernels) {
  in_every_split(kernels, "PackedBiasedAttention", {-1}, true);
}

void bf16_attention_in_every_split(const Kernels& kernels) {
  if (kernels.attend_bf16 == nullptr || !bf16_tiles()) return;
  static auto& bf16 = *new Kernels(kernels);  // operators refer to it
  bf16.attend = kernels.attend_bf16;
  constexpr double error = 0.04;  // rounding q, k, v and weights, each to 1/256 of it at most
  in_every_split(bf16, "PackedAttention", {-1}, false, error);
  in_every_split(bf16, "PackedLocalAttention", {0, 5, 64, 200}, false, error);
  in_every_split(bf16, "PackedFirstAttention", {-1}, false, error);
  in_every_split(bf16, "PackedBiasedAttention", {-1}, true, error);
}

}  // namespace bertd::tests
