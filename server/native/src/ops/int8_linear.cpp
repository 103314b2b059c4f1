// Linear layers in int8, with what stands before and behind them in the graph.
//
//   x ─levels?─> product, bias ─┬─────────────────────────> floats
//                               ├─> Gelu ─────────────────> levels
//                               └─> + stream ─> norm ─────> floats, levels
//
// A name says the stages, as export/bertd_export/quantization/int8_functions.py tells. Steps that
// need whole rows are passes of their own, so that few rows can be split by columns.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "kernels/levels.h"
#include "kernels/norm.h"
#include "ops/int8_weight.h"
#include "ops/registered.h"

namespace bertd {
namespace {

using ort::Presence;
using ort::Type;

enum class Given { levels, floats, row, gelu_row };
enum class Follow { floats, gelu, gelu_tanh, norm, stream };

// What one name means; smooth and levels are of norm and stream.
struct Stages {
  Given given;
  bool biased;
  Follow follow;
  bool shifted = true;
  bool smooth = false;
  bool levels = false;

  constexpr bool activated() const {
    return follow == Follow::gelu || follow == Follow::gelu_tanh;
  }
};

constexpr size_t input_count = 13;
enum Input : size_t {
  x,
  weight,
  x_scale,
  weight_scale,
  x_zero,
  bias,
  least,
  stream,
  gamma,
  beta,
  smoothing,
  y_scale,
  y_zero,
};

// A constant of the graph; its elements live as long as the session.
template <class Element>
const Element* constant(const ort::Node& node, Input index, size_t elements, const char* name) {
  const ort::Tensor tensor = index < node.inputs() ? node.constant(index) : ort::Tensor{};
  if (!tensor || tensor.elements() != elements) {
    throw ort::Error(std::string(name) + " must be a constant of " + std::to_string(elements) +
                     " elements");
  }
  return tensor.as<Element>();
}

std::vector<float> copied(const float* from, size_t count) { return {from, from + count}; }

// Rows cut into blocks of nearly one size.
struct Blocks {
  size_t total;
  size_t count;
  size_t begin(size_t block) const { return total * block / count; }
};

class Int8Linear {
 public:
  Int8Linear(const ort::Node& node, const Kernels& kernels, const Stages& stages)
      : kernels_(kernels), stages_(stages) {
    const ort::Tensor levels = node.constant(weight);
    if (!levels || levels.sizes.size() != 2) {
      throw ort::Error("weight must be a constant [inputs, outputs]");
    }
    Int8Constants from{};
    from.inputs = static_cast<size_t>(levels.sizes[0]);
    from.outputs = static_cast<size_t>(levels.sizes[1]);
    from.levels = levels.as<int8_t>();
    if (!std::all_of(from.levels, from.levels + levels.elements(),
                     [](int8_t level) { return -64 <= level && level <= 64; })) {
      throw ort::Error("weight must be within -64 and 64: sums of two products need the other bit");
    }
    from.weight_scales = constant<float>(node, weight_scale, from.outputs, "weight_scale");
    if (stages.biased) from.bias = constant<float>(node, bias, from.outputs, "bias");
    from.row_scale = *constant<float>(node, x_scale, 1, "x_scale");
    from.row_zero = *constant<uint8_t>(node, x_zero, 1, "x_zero");
    weight_ = PackedWeight::of(from, kernels);
    inverse_x_ = 1.0f / from.row_scale;
    x_zero_ = from.row_zero;
    if (own_scale()) floor_ = *constant<float>(node, least, 1, "floor");
    if (normed()) read_norm(node, from.outputs);
    if (stages.activated()) read_levels(node);
  }

  void run(const ort::Run& run) const {
    const ort::Tensor given = run.input(x);
    const Int8Weight w = weight_->view();
    if (given.sizes.empty() || given.sizes.back() != static_cast<int64_t>(w.inputs)) {
      throw ort::Error("x must have rows of " + std::to_string(w.inputs));
    }
    Job job{run, given.elements() / w.inputs};
    std::vector<int64_t> sizes = given.sizes;
    if (normed()) {
      const ort::Tensor added = run.input(stream);
      if (added.elements() != job.rows * w.outputs || added.sizes.back() != static_cast<int64_t>(w.outputs)) {
        throw ort::Error("stream must have x's rows, and as many columns as weight");
      }
      job.stream = added.as<float>();
      if (added.sizes.size() > sizes.size()) sizes = added.sizes;
    }
    sizes.back() = static_cast<int64_t>(w.outputs);
    size_t output = 0;
    if (!stages_.activated()) job.out = make<float>(run, output++, sizes);
    if (gives_levels()) job.levels = make<uint8_t>(run, output++, sizes);
    if (job.rows == 0) return;
    std::unique_ptr<uint8_t[]> scratch;
    std::unique_ptr<float[]> scales;
    job.x = given.as<uint8_t>();
    if (stages_.given != Given::levels) {
      scratch.reset(new uint8_t[job.rows * w.inputs]);
      if (own_scale()) scales.reset(new float[job.rows]);
      job.x = scratch.get();
      job.row_scales = scales.get();
      to_levels(job, given.as<float>(), scratch.get(), scales.get());
    }
    multiply(job, w);
    if (normed()) norm(job, w.outputs);
  }

 private:
  // One run: what the passes hand to each other.
  struct Job {
    const ort::Run& run;
    size_t rows;
    const uint8_t* x = nullptr;
    const float* row_scales = nullptr;
    const float* stream = nullptr;
    float* out = nullptr;
    uint8_t* levels = nullptr;
  };

  static constexpr size_t pass = 1 << 15;     // numbers that are worth a job of a pass by rows
  static constexpr size_t products = 1 << 18;  // products that are worth a job
  static constexpr size_t block_bytes = 1 << 17;  // of weights, which rows of a block share

  bool own_scale() const {
    return stages_.given == Given::row || stages_.given == Given::gelu_row;
  }
  bool normed() const {
    return stages_.follow == Follow::norm || stages_.follow == Follow::stream;
  }
  bool gives_levels() const { return stages_.activated() || stages_.levels; }

  void read_levels(const ort::Node& node) {
    inverse_y_ = 1.0f / *constant<float>(node, y_scale, 1, "y_scale");
    y_zero_ = *constant<uint8_t>(node, y_zero, 1, "y_zero");
  }

  void read_norm(const ort::Node& node, size_t width) {
    epsilon_ = node.real("epsilon");
    gamma_ = copied(constant<float>(node, gamma, width, "gamma"), width);
    beta_.assign(width, 0.0f);
    if (stages_.shifted) beta_ = copied(constant<float>(node, beta, width, "beta"), width);
    if (!stages_.levels) return;
    read_levels(node);
    multipliers_.assign(width, inverse_y_);
    if (!stages_.smooth) return;
    const auto* smooth = constant<float>(node, smoothing, width, "smooth");
    for (size_t i = 0; i < width; ++i) multipliers_[i] *= smooth[i];
  }

  template <class Element>
  static Element* make(const ort::Run& run, size_t index, const std::vector<int64_t>& sizes) {
    return static_cast<Element*>(run.output(index, sizes.data(), sizes.size()));
  }

  // Calls step(first row, end) for blocks of rows.
  template <class Step>
  static void by_rows(const Job& job, size_t width, const Step& step) {
    const size_t wanted = std::max<size_t>(job.rows * width / pass, 1);
    const Blocks blocks{job.rows, std::min(wanted, job.rows)};
    job.run.parallel(blocks.count,
                     [&](size_t i) { step(blocks.begin(i), blocks.begin(i + 1)); });
  }

  void to_levels(const Job& job, const float* from, uint8_t* to, float* scales) const {
    const size_t width = weight_->view().inputs;
    by_rows(job, width, [&](size_t first, size_t end) {
      kernels_.to_levels({from + first * width, end - first, width, inverse_x_, x_zero_,
                          to + first * width, scales == nullptr ? nullptr : scales + first,
                          stages_.given == Given::row, floor_});
    });
  }

  void norm(const Job& job, size_t width) const {
    const bool levels = stages_.levels;
    by_rows(job, width, [&](size_t first, size_t end) {
      kernels_.norm({job.out + first * width, end - first, width, gamma_.data(), beta_.data(),
                     epsilon_, stages_.follow == Follow::norm,
                     levels ? multipliers_.data() : nullptr, y_zero_,
                     levels ? job.levels + first * width : nullptr});
    });
  }

  // Jobs are blocks of rows times blocks of panels, the rows of one block of panels in a row.
  void multiply(const Job& job, const Int8Weight& w) const {
    const size_t block_rows = kernels_.int8_block_rows;
    const Blocks rows{job.rows, (job.rows + block_rows - 1) / block_rows};
    const size_t panels = weight_->panels();
    const size_t bytes = kernels_.int8_panel * w.inputs;
    const size_t each = std::max<size_t>(job.rows / rows.count, 1) * bytes;
    size_t wide = std::min((products + each - 1) / each, std::max<size_t>(block_bytes / bytes, 1));
    wide = std::max<size_t>(std::min(wide, panels), 1);
    size_t count = (panels + wide - 1) / wide;
    if (count > 1 && count % 2 == 1 && rows.count % 2 == 1 && count < panels) ++count;
    const Blocks columns{panels, count};
    job.run.parallel(rows.count * columns.count, [&](size_t i) {
      const size_t row = i % rows.count;
      const size_t column = i / rows.count;
      kernels_.int8_product({w, job.x, job.row_scales, rows.begin(row), rows.begin(row + 1),
                             columns.begin(column), columns.begin(column + 1), job.stream, job.out,
                             stages_.activated() ? job.levels : nullptr, inverse_y_, y_zero_,
                             stages_.follow == Follow::gelu_tanh});
    });
  }

  const Kernels& kernels_;
  const Stages stages_;
  std::shared_ptr<const PackedWeight> weight_;
  float inverse_x_ = 0;
  int x_zero_ = 0;
  float floor_ = 0;
  float epsilon_ = 0;
  std::vector<float> gamma_;
  std::vector<float> beta_;
  std::vector<float> multipliers_;
  float inverse_y_ = 0;
  int y_zero_ = 0;
};

struct Name {
  char text[64] = {};
  size_t size = 0;

  constexpr Name& add(const char* part, bool wanted = true) {
    for (; wanted && *part != 0; ++part) text[size++] = *part;
    return *this;
  }
};

constexpr Name spelled(const Stages& s) {
  Name name;
  name.add("Int8").add("Static", s.given == Given::floats);
  name.add("GeluRow", s.given == Given::gelu_row).add("Row", s.given == Given::row);
  name.add(s.biased ? "Linear" : "Product").add("Gelu", s.activated());
  name.add("Tanh", s.follow == Follow::gelu_tanh);
  name.add("Unshifted", !s.shifted).add("Norm", s.follow == Follow::norm);
  name.add("Stream", s.follow == Follow::stream);
  return name.add("Smooth", s.smooth).add("Quantize", s.levels);
}

constexpr std::array<ort::Port, input_count> ports(Given given) {
  constexpr Presence maybe = Presence::optional;
  return {{{given == Given::levels ? Type::uint8 : Type::float32},
           {Type::int8},
           {Type::float32},
           {Type::float32},
           {Type::uint8},
           {Type::float32, maybe},
           {Type::float32, maybe},
           {Type::float32, maybe},
           {Type::float32, maybe},
           {Type::float32, maybe},
           {Type::float32, maybe},
           {Type::float32, maybe},
           {Type::uint8, maybe}}};
}

template <class Choice>
class Named : public Int8Linear {
 public:
  static constexpr Stages stages = Choice::stages;
  static constexpr Name spelling = spelled(stages);
  static constexpr const char* name = spelling.text;
  static constexpr auto inputs = ports(stages.given);
  static constexpr std::array<ort::Port, 1 + stages.levels> outputs = [] {
    std::array<ort::Port, 1 + stages.levels> types{};
    types[0] = {stages.activated() ? Type::uint8 : Type::float32};
    if (stages.levels) types[stages.levels] = {Type::uint8};
    return types;
  }();

  Named(const ort::Node& node, const Kernels& kernels) : Int8Linear(node, kernels, stages) {}
};

template <Given given, bool biased, Follow follow, bool shifted, bool smooth, bool levels>
struct Chosen {
  static constexpr Stages stages{given, biased, follow, shifted, smooth, levels};
};

template <Given given, bool biased, Follow follow, bool shifted>
void add_normed(const Kernels& kernels, std::vector<NamedOp>& ops) {
  if constexpr (follow == Follow::norm) {
    add<Named<Chosen<given, biased, follow, shifted, false, false>>>(kernels, ops);
  }
  add<Named<Chosen<given, biased, follow, shifted, false, true>>>(kernels, ops);
  add<Named<Chosen<given, biased, follow, shifted, true, true>>>(kernels, ops);
}

template <Given given, bool biased>
void add_all(const Kernels& kernels, std::vector<NamedOp>& ops) {
  add<Named<Chosen<given, biased, Follow::floats, true, false, false>>>(kernels, ops);
  add<Named<Chosen<given, biased, Follow::gelu, true, false, false>>>(kernels, ops);
  add<Named<Chosen<given, biased, Follow::gelu_tanh, true, false, false>>>(kernels, ops);
  add_normed<given, biased, Follow::norm, true>(kernels, ops);
  add_normed<given, biased, Follow::norm, false>(kernels, ops);
  add_normed<given, biased, Follow::stream, true>(kernels, ops);
  add_normed<given, biased, Follow::stream, false>(kernels, ops);
}

template <Given given>
void add_given(const Kernels& kernels, std::vector<NamedOp>& ops) {
  add_all<given, true>(kernels, ops);
  add_all<given, false>(kernels, ops);
}

}  // namespace

void add_int8_linear(const Kernels& kernels, std::vector<NamedOp>& ops) {
  add_given<Given::levels>(kernels, ops);
  add_given<Given::floats>(kernels, ops);
  add_given<Given::row>(kernels, ops);
  add_given<Given::gelu_row>(kernels, ops);
}

}  // namespace bertd
