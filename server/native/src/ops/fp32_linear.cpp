// Linear layers in fp32, with what stands behind them in the graph.
//
//   x ──> product, bias ─┬─────────────────────────> Fp32Linear
//                        ├─> Gelu ─────────────────> Fp32LinearGelu, Fp32LinearGeluTanh
//                        └─> + stream ─> norm ─────> Fp32LinearNorm
//
// As export/bertd_export/graph/linear_functions.py writes them: the weight in panels.
#include <algorithm>

#include "kernels/fp32_product.h"
#include "kernels/norm.h"
#include "ops/registered.h"

namespace bertd {
namespace {

using ort::Presence;
using ort::Type;

enum Input : size_t { x, weight, bias, stream, gamma, beta };

// Rows or panels cut into blocks of nearly one size.
struct Blocks {
  size_t total;
  size_t count;
  size_t begin(size_t block) const { return total * block / count; }
};

class Fp32Linear {
 public:
  static constexpr ort::Port inputs[] = {{Type::float32},
                                         {Type::float32},
                                         {Type::float32},
                                         {Type::float32, Presence::optional},
                                         {Type::float32, Presence::optional},
                                         {Type::float32, Presence::optional}};
  static constexpr ort::Port outputs[] = {{Type::float32}};

  Fp32Linear(const ort::Node& node, const Kernels& kernels, Activation activation, bool normed)
      : kernels_(kernels), activation_(activation), normed_(normed) {
    const ort::Tensor panels = node.constant(weight);
    if (!panels || panels.sizes.size() != 3 || panels.sizes[2] != int64_t{fp32_panel}) {
      throw ort::Error("weight must be a constant [panels, inputs, " + std::to_string(fp32_panel) +
                       "]");
    }
    weight_.inputs = static_cast<size_t>(panels.sizes[1]);
    weight_.outputs = static_cast<size_t>(panels.sizes[0]) * fp32_panel;
    weight_.panels = panels.as<float>();
    weight_.bias = row_of(node, bias, "bias");
    if (!normed) return;
    gamma_ = row_of(node, gamma, "gamma");
    beta_ = row_of(node, beta, "beta");
    epsilon_ = node.real("epsilon");
  }

  void run(const ort::Run& run) const {
    const ort::Tensor given = run.input(x);
    if (given.sizes.empty() || given.sizes.back() != static_cast<int64_t>(weight_.inputs)) {
      throw ort::Error("x must have rows of " + std::to_string(weight_.inputs));
    }
    const size_t rows = given.elements() / weight_.inputs;
    std::vector<int64_t> sizes = given.sizes;
    const float* added = nullptr;
    if (normed_) {
      const ort::Tensor with = run.input(stream);
      if (with.elements() != rows * weight_.outputs ||
          with.sizes.back() != static_cast<int64_t>(weight_.outputs)) {
        throw ort::Error("stream must have x's rows, and as many columns as weight");
      }
      added = with.as<float>();
      if (with.sizes.size() > sizes.size()) sizes = with.sizes;
    }
    sizes.back() = static_cast<int64_t>(weight_.outputs);
    auto* out = static_cast<float*>(run.output(0, sizes.data(), sizes.size()));
    if (rows == 0) return;
    multiply(run, given.as<float>(), rows, added, out);
    if (normed_) norm(run, rows, out);
  }

 private:
  static constexpr size_t pass = 1 << 15;      // numbers that are worth a job of a pass by rows
  static constexpr size_t least = 1 << 18;     // products that are worth a job
  static constexpr size_t most = 1 << 23;      // products of a job where there are jobs enough
  static constexpr size_t enough = 32;         // jobs
  static constexpr size_t block_rows = 72;     // that share a panel while the cache holds it

  // A constant with a number for each output, where the session has it.
  const float* row_of(const ort::Node& node, Input index, const char* name) const {
    const ort::Tensor tensor = index < node.inputs() ? node.constant(index) : ort::Tensor{};
    if (!tensor || tensor.elements() != weight_.outputs) {
      throw ort::Error(std::string(name) + " must be a constant of " +
                       std::to_string(weight_.outputs) + " elements");
    }
    return tensor.as<float>();
  }

  // Jobs are blocks of rows times blocks of panels. All panels pass a block of rows before the
  // next block: the cache holds the rows, and panels can be fetched ahead.
  void multiply(const ort::Run& run, const float* from, size_t count, const float* added,
                float* out) const {
    const Blocks rows{count, (count + block_rows - 1) / block_rows};
    const size_t panels = weight_.outputs / fp32_panel;
    const size_t floats = weight_.inputs * fp32_panel;
    const size_t each = count / rows.count * floats;  // products of a block of rows and a panel
    const size_t work = std::min(std::max(count * panels * floats / enough, least), most);
    const size_t wide = std::max<size_t>(work / each, 1);
    const Blocks columns{panels, (panels + wide - 1) / wide};
    run.parallel(rows.count * columns.count, [&](size_t i) {
      const size_t row = i / columns.count, column = i % columns.count;
      kernels_.fp32_product({weight_, from, rows.begin(row), rows.begin(row + 1),
                             columns.begin(column), columns.begin(column + 1), activation_, added,
                             out});
    });
  }

  void norm(const ort::Run& run, size_t count, float* out) const {
    const size_t width = weight_.outputs;
    const Blocks rows{count, std::min(std::max<size_t>(count * width / pass, 1), count)};
    run.parallel(rows.count, [&](size_t i) {
      const size_t first = rows.begin(i), end = rows.begin(i + 1);
      kernels_.norm({out + first * width, end - first, width, gamma_, beta_, epsilon_, true,
                     nullptr, 0, nullptr});
    });
  }

  const Kernels& kernels_;
  const Activation activation_;
  const bool normed_;
  Fp32Weight weight_{};
  const float* gamma_ = nullptr;
  const float* beta_ = nullptr;
  float epsilon_ = 0;
};

struct Plain : Fp32Linear {
  static constexpr const char* name = "Fp32Linear";
  Plain(const ort::Node& node, const Kernels& kernels)
      : Fp32Linear(node, kernels, Activation::none, false) {}
};
struct Gelu : Fp32Linear {
  static constexpr const char* name = "Fp32LinearGelu";
  Gelu(const ort::Node& node, const Kernels& kernels)
      : Fp32Linear(node, kernels, Activation::gelu, false) {}
};
struct GeluTanh : Fp32Linear {
  static constexpr const char* name = "Fp32LinearGeluTanh";
  GeluTanh(const ort::Node& node, const Kernels& kernels)
      : Fp32Linear(node, kernels, Activation::gelu_tanh, false) {}
};
struct Normed : Fp32Linear {
  static constexpr const char* name = "Fp32LinearNorm";
  Normed(const ort::Node& node, const Kernels& kernels)
      : Fp32Linear(node, kernels, Activation::none, true) {}
};

}  // namespace

void add_fp32_linear(const Kernels& kernels, std::vector<NamedOp>& ops) {
  add<Plain>(kernels, ops);
  add<Gelu>(kernels, ops);
  add<GeluTanh>(kernels, ops);
  add<Normed>(kernels, ops);
}

}  // namespace bertd
