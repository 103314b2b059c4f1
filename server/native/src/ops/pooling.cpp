// PackedMean, PackedMax and PackedWeightedMean: a row of each sequence.
#include "kernels/pooling.h"

#include "ops/registered.h"
#include "ops/sequences.h"

namespace bertd {
namespace {

template <void (*Kernels::*Reduce)(const Rows&)>
class PackedPooling {
 public:
  static constexpr ort::Port inputs[] = {{ort::Type::float32}, {ort::Type::int64}};
  static constexpr ort::Port outputs[] = {{ort::Type::float32}};

  PackedPooling(const ort::Node&, const Kernels& kernels) : reduce_(kernels.*Reduce) {}

  void run(const ort::Run& run) const {
    const ort::Tensor x = run.input(0);
    if (x.sizes.size() != 2) throw ort::Error("x must be [tokens, width]");
    const size_t width = static_cast<size_t>(x.sizes[1]);
    const Sequences sequences(run.input(1), static_cast<size_t>(x.sizes[0]));
    auto* out = static_cast<float*>(
        run.output(0, {static_cast<int64_t>(sequences.count()), x.sizes[1]}));
    const auto* rows = x.as<float>();
    // A pass over the rows costs less than to wake a thread for it.
    for (size_t s = 0; s < sequences.count(); ++s) {
      reduce_({rows + sequences.begin(s) * width, sequences.length(s), width, out + s * width});
    }
  }

 private:
  void (*reduce_)(const Rows&);
};

struct PackedMean : PackedPooling<&Kernels::mean> {
  static constexpr const char* name = "PackedMean";
  using PackedPooling::PackedPooling;
};
struct PackedMax : PackedPooling<&Kernels::maximum> {
  static constexpr const char* name = "PackedMax";
  using PackedPooling::PackedPooling;
};
struct PackedWeightedMean : PackedPooling<&Kernels::weighted_mean> {
  static constexpr const char* name = "PackedWeightedMean";
  using PackedPooling::PackedPooling;
};

}  // namespace

void add_pooling(const Kernels& kernels, std::vector<NamedOp>& ops) {
  add<PackedMean>(kernels, ops);
  add<PackedMax>(kernels, ops);
  add<PackedWeightedMean>(kernels, ops);
}

}  // namespace bertd
