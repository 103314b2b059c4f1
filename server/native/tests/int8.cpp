// Int8 linear layers against plain loops, and the same bits in every split.
#include <algorithm>

#include "kernels/int8_product.h"
#include "kernels/levels.h"
#include "kernels/norm.h"
#include "ops/int8_weight.h"
#include "tests.h"

namespace bertd::tests {
namespace {

template <class Number>
std::vector<Number> integers(uint32_t seed, size_t count, int low, int high) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> numbers(low, high);
  std::vector<Number> result(count);
  for (Number& number : result) number = static_cast<Number>(numbers(random));
  return result;
}

std::vector<float> near(float middle, uint32_t seed, size_t count) {
  std::vector<float> result = normal(seed, count);
  for (float& number : result) number = middle * (1 + 0.2f * std::tanh(number));
  return result;
}

void check_level(uint8_t got, double want, const char* what) {
  want = std::min(std::max(want, 0.0), 255.0);
  if (std::abs(got - want) > 0.52) {
    throw std::runtime_error(std::string(what) + " gives level " + std::to_string(got) + " for " +
                             std::to_string(want));
  }
}

struct Range {
  int low, high;
};

// A product of rows and a weight, of odd sizes, in every way to finish it.
void check_product(const Kernels& kernels, size_t rows, size_t inputs, size_t outputs,
                   Range of_weights = {-64, 64}, Range of_rows = {0, 255}) {
  const auto x = integers<uint8_t>(1, rows * inputs, of_rows.low, of_rows.high);
  const auto levels =
      integers<int8_t>(2, inputs * outputs, of_weights.low, of_weights.high);
  const auto scales = near(2e-3f, 3, outputs), bias = normal(4, outputs);
  const auto stream = normal(5, rows * outputs), row_scales = near(1.5f, 6, rows);
  constexpr float x_scale = 0.02f;
  constexpr int zero = 117;
  const auto packed = PackedWeight::of(
      {inputs, outputs, levels.data(), scales.data(), bias.data(), x_scale, zero},
      kernels);
  const Int8Weight weight = packed->view();

  std::vector<double> want(rows * outputs);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < outputs; ++column) {
      int64_t sum = 0;
      for (size_t i = 0; i < inputs; ++i) {
        sum += (x[row * inputs + i] - zero) * levels[i * outputs + column];
      }
      want[row * outputs + column] = double(sum) * x_scale * scales[column];
    }
  }
  for (const bool scaled : {false, true}) {
    for (const bool added : {false, true}) {
      std::vector<float> out(rows * outputs), split(rows * outputs);
      Int8Product job{weight, x.data(), scaled ? row_scales.data() : nullptr, 0, rows, 0,
                      packed->panels(), added ? stream.data() : nullptr, out.data(), nullptr, 0, 0};
      kernels.int8_product(job);
      job.out = split.data();
      for (size_t row = 0; row < rows; ++row) {
        for (size_t at = packed->panels(); at-- > 0;) {
          job.first_row = row, job.end_row = row + 1, job.first_panel = at, job.end_panel = at + 1;
          kernels.int8_product(job);
        }
      }
      check_same(split, out, 0, "int8 product");
      for (size_t i = 0; i < out.size(); ++i) {
        const double product = want[i] * (scaled ? row_scales[i / outputs] : 1.0f);
        const double all = product + bias[i % outputs] + (added ? stream[i] : 0.0f);
        const double room = 1e-5 * (std::abs(product) + 1);
        if (std::abs(out[i] - all) > room) throw std::runtime_error("int8 product is wrong");
      }
    }
  }
  std::vector<uint8_t> gelu(rows * outputs);
  constexpr float y_scale = 0.17f / 8;
  for (const bool tanh : {false, true}) {
    kernels.int8_product({weight, x.data(), nullptr, 0, rows, 0, packed->panels(), nullptr, nullptr,
                          gelu.data(), 1 / y_scale, 8, tanh});
    for (size_t i = 0; i < gelu.size(); ++i) {
      const double y = want[i] + bias[i % outputs];
      const double bent = tanh ? std::tanh(0.7978845608028654 * (y + 0.044715 * y * y * y))
                               : std::erf(y / std::sqrt(2.0));
      check_level(gelu[i], y / 2 * (1 + bent) / y_scale + 8, "gelu");
    }
  }
}

void check_levels(const Kernels& kernels, size_t rows, size_t width) {
  const auto x = normal(7, rows * width);
  for (const bool own : {false, true}) {
    for (const bool magnitude : {false, true}) {
      std::vector<uint8_t> levels(rows * width);
      std::vector<float> scales(rows);
      kernels.to_levels({x.data(), rows, width, 50.0f, 128, levels.data(),
                         own ? scales.data() : nullptr, magnitude, 0.1f});
      for (size_t row = 0; row < rows; ++row) {
        const float* from = x.data() + row * width;
        double scale = 0.1f;
        for (size_t i = 0; i < width; ++i) {
          scale = std::max<double>(scale, magnitude ? std::abs(from[i]) : from[i]);
        }
        if (own) check_close(scales[row], scale, "scale of a row");
        for (size_t i = 0; i < width; ++i) {
          check_level(levels[row * width + i], from[i] / (own ? scale : 1) * 50 + 128, "levels");
        }
      }
    }
  }
}

void check_norm(const Kernels& kernels, size_t rows, size_t width) {
  const auto given = normal(8, rows * width), gamma = near(1, 9, width), beta = normal(10, width);
  const auto multipliers = near(30, 11, width);
  for (const bool keep : {false, true}) {
    std::vector<float> x = given;
    std::vector<uint8_t> levels(rows * width);
    kernels.norm({x.data(), rows, width, gamma.data(), beta.data(), 1e-6f, keep,
                  multipliers.data(), 120, levels.data()});
    if (!keep) check_same(x, given, 0, "rows that are not kept");
    for (size_t row = 0; row < rows; ++row) {
      const float* from = given.data() + row * width;
      double mean = 0, variance = 0;
      for (size_t i = 0; i < width; ++i) mean += double(from[i]) / double(width);
      for (size_t i = 0; i < width; ++i) {
        variance += (from[i] - mean) * (from[i] - mean) / double(width);
      }
      for (size_t i = 0; i < width; ++i) {
        const double y = (from[i] - mean) / std::sqrt(variance + 1e-6) * gamma[i] + beta[i];
        if (keep && std::abs(x[row * width + i] - y) > 1e-4) {
          throw std::runtime_error("norm is wrong");
        }
        check_level(levels[row * width + i], y * multipliers[i] + 120, "norm");
      }
    }
  }
}

}  // namespace

void int8_kernels(const Kernels& kernels) {
  for (const size_t width : {1, 7, 8, 15, 33, 70}) {
    check_levels(kernels, 3, width);
    if (width > 1) check_norm(kernels, 3, width);
    for (const size_t rows : {1, 2, 3, 4, 7}) check_product(kernels, rows, width, 71 - width);
  }
  // Whole tiles and parts of them, with inputs that fill a step of them and inputs beyond.
  for (const size_t inputs : {64, 67, 200}) {
    for (const size_t rows : {4, 15, 16, 17, 31, 32, 33, 49, 70}) {
      check_product(kernels, rows, inputs, 70);
    }
  }
  // Weights of which four just fit into 16 bits, and those that are a little too large.
  for (const Range weights : {Range{-32, 32}, {-20, 20}, {32, 32}, {33, 33}, {-32, -32}, {-33, -33},
                              {64, 64}, {-64, -64}}) {
    check_product(kernels, 5, 45, 19, weights);
    check_product(kernels, 5, 45, 19, weights, {255, 255});
  }
}

// The operator with all its passes, on one thread and on three, together and row by row.
void int8_layer_in_every_split(const Kernels& kernels) {
  constexpr int64_t inputs = 130, outputs = 301;
  const auto& op = op_named(made(kernels, add_int8_linear), "Int8RowLinearNorm");
  const auto levels = integers<int8_t>(1, inputs * outputs, -64, 64);
  constexpr float x_scale = 1 / 127.0f, least = 0.01f;
  constexpr uint8_t zero = 128;
  ort::Info info;
  info.inputs = 10;
  info.reals = {{"epsilon", 1e-6f}};
  const auto constant = [&](size_t index, std::vector<int64_t> sizes, std::vector<float> from) {
    info.constants.emplace(index, fake::floats(std::move(sizes), from));
  };
  info.constants.emplace(1, fake::value(ort::Type::int8, {inputs, outputs}, levels.data()));
  constant(2, {}, {x_scale});
  constant(3, {outputs}, near(2e-3f, 2, outputs));
  info.constants.emplace(4, fake::value(ort::Type::uint8, {}, &zero));
  constant(5, {outputs}, normal(3, outputs));
  constant(6, {}, {least});
  constant(8, {outputs}, near(1, 4, outputs));
  constant(9, {outputs}, normal(5, outputs));
  const int64_t rows = 70;
  const auto x = normal(6, rows * inputs), stream = normal(7, rows * outputs);
  const auto run = [&](int64_t first, int64_t end, size_t threads) {
    ort::Context context;
    context.threads = threads;
    for (size_t input = 0; input < info.inputs; ++input) {
      const bool is_stream = input == 7;
      const auto& from = is_stream ? stream : x;
      const int64_t width = is_stream ? outputs : inputs;
      context.inputs.push_back(fake::floats(
          {end - first, width}, {from.begin() + first * width, from.begin() + end * width}));
    }
    return fake::run(op, info, context);
  };
  const auto together = run(0, rows, 3);
  check_same(run(0, rows, 1), together, 0, "int8 layer on one thread");
  for (int64_t row = 0; row < rows; row += 7) {
    check_same(run(row, row + 1, 2), together, size_t(row * outputs), "int8 layer of a row");
  }
}

}  // namespace bertd::tests
