// Pooling against plain loops in double; and inputs that do not fit are refused.
#include <algorithm>

#include "tests.h"

namespace bertd::tests {
namespace {

std::vector<float> pool(const ort::OpTable& op, const std::vector<int64_t>& cu, size_t width,
                        const std::vector<float>& x) {
  ort::Context context;
  context.inputs.push_back(
      fake::floats({static_cast<int64_t>(x.size() / width), static_cast<int64_t>(width)}, x));
  context.inputs.push_back(fake::integers(cu));
  return fake::run(op, {}, context);
}

void check(const ort::OpTable& op, const std::string& name, size_t width) {
  const std::vector<size_t> lengths = {1, 2, 3, 9, 40};
  const auto cu = bounds(lengths);
  const auto x = normal(1, static_cast<size_t>(cu.back()) * width);
  const auto got = pool(op, cu, width, x);
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (size_t j = 0; j < width; ++j) {
      double sum = 0, total = 0, top = -1e300;
      for (size_t i = 0; i < lengths[s]; ++i) {
        const double weight = name == "PackedWeightedMean" ? double(i + 1) : 1.0;
        const double number = x[(static_cast<size_t>(cu[s]) + i) * width + j];
        sum += weight * number;
        total += weight;
        top = std::max(top, number);
      }
      check_close(got[s * width + j], name == "PackedMax" ? top : sum / total, name.c_str());
    }
  }
}

}  // namespace

void pooling_in_every_split(const Kernels& kernels) {
  for (const NamedOp& op : made(kernels, add_pooling)) {
    for (size_t width : {1, 7, 8, 9, 31, 64}) check(*op.op, op.name, width);
  }
}

void what_does_not_fit(const Kernels& kernels) {
  for (const std::vector<int64_t>& cu :
       std::vector<std::vector<int64_t>>{{0}, {0, 3}, {1, 5}, {0, 5, 3, 5}, {0, 5, 5}}) {
    try {
      pool(*made(kernels, add_pooling)[0].op, cu, 4, normal(1, 20));
    } catch (const ort::Error&) {
      continue;
    }
    throw std::runtime_error("bounds were taken");
  }
}

}  // namespace bertd::tests
