// Fp32 linear layers against plain loops, and the same bits in every split.
#include "kernels/fp32_product.h"
#include "tests.h"

namespace bertd::tests {
namespace {

double follow(Activation activation, double x) {
  if (activation == Activation::gelu) return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
  if (activation == Activation::none) return x;
  return x / 2 * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// A product of rows and a weight in every way to finish it, as a whole and a row and panel a time.
void check_product(const Kernels& kernels, size_t rows, size_t inputs, size_t panels) {
  const size_t outputs = panels * fp32_panel;
  const auto x = normal(1, rows * inputs), weights = normal(2, inputs * outputs);
  const auto bias = normal(3, outputs), stream = normal(4, rows * outputs);
  const Fp32Weight weight{inputs, outputs, weights.data(), bias.data()};
  for (const Activation activation : {Activation::none, Activation::gelu, Activation::gelu_tanh}) {
    for (const bool added : {false, true}) {
      std::vector<float> out(rows * outputs), split(rows * outputs);
      Fp32Product job{weight,     x.data(), 0, rows, 0, panels, activation,
                      added ? stream.data() : nullptr, out.data()};
      kernels.fp32_product(job);
      job.out = split.data();
      for (size_t row = 0; row < rows; ++row) {
        for (size_t at = panels; at-- > 0;) {
          job.first_row = row, job.end_row = row + 1, job.first_panel = at, job.end_panel = at + 1;
          kernels.fp32_product(job);
        }
      }
      check_same(split, out, 0, "fp32 product");
      for (size_t i = 0; i < out.size(); ++i) {
        const size_t row = i / outputs, column = i % outputs;
        const float* panel = weights.data() + column / fp32_panel * inputs * fp32_panel;
        double sum = bias[column], magnitude = 1;
        for (size_t input = 0; input < inputs; ++input) {
          const double one = double(x[row * inputs + input]) *
                             panel[input * fp32_panel + column % fp32_panel];
          sum += one, magnitude += std::abs(one);
        }
        const double want = follow(activation, sum) + (added ? stream[i] : 0.0f);
        if (!(std::abs(out[i] - want) <= 2e-6 * magnitude)) {
          throw std::runtime_error("fp32 product is wrong");
        }
      }
    }
  }
}

}  // namespace

void fp32_products(const Kernels& kernels) {
  for (size_t rows = 1; rows <= 27; ++rows) check_product(kernels, rows, 1 + rows % 5, 2);
  for (const size_t inputs : {1, 2, 33, 100}) check_product(kernels, 13, inputs, 3);
}

// The operator with both passes, on one thread and on three, together and row by row.
void fp32_layer_in_every_split(const Kernels& kernels) {
  constexpr int64_t inputs = 130, panels = 10, outputs = panels * int64_t{fp32_panel};
  const auto& op = op_named(made(kernels, add_fp32_linear), "Fp32LinearNorm");
  ort::Info info;
  info.inputs = 6;
  info.reals = {{"epsilon", 1e-6f}};
  const auto constant = [&](size_t index, std::vector<int64_t> sizes, std::vector<float> from) {
    info.constants.emplace(index, fake::floats(std::move(sizes), from));
  };
  constant(1, {panels, inputs, fp32_panel}, normal(1, inputs * outputs));
  for (const size_t index : {2, 4, 5}) constant(index, {outputs}, normal(index, outputs));
  const int64_t rows = 170;
  const auto x = normal(6, rows * inputs), stream = normal(7, rows * outputs);
  const auto run = [&](int64_t first, int64_t end, size_t threads) {
    ort::Context context;
    context.threads = threads;
    for (size_t input = 0; input < info.inputs; ++input) {
      const auto& from = input == 3 ? stream : x;
      const int64_t width = input == 3 ? outputs : inputs;
      context.inputs.push_back(fake::floats(
          {end - first, width}, {from.begin() + first * width, from.begin() + end * width}));
    }
    return fake::run(op, info, context);
  };
  const auto together = run(0, rows, 3);
  check_same(run(0, rows, 1), together, 0, "fp32 layer on one thread");
  for (int64_t row = 0; row < rows; row += 7) {
    check_same(run(row, row + 1, 2), together, size_t(row * outputs), "fp32 layer of a row");
  }
}

}  // namespace bertd::tests
