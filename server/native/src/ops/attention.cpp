// PackedAttention and its kin: each sequence over itself, for all rows or the first alone, within
// a window, or with a bias from the distance of two tokens.
//
// A job is a block of queries of one sequence and one head. Long sequences come first, so that the
// threads end together: sequences lie in ascending order of length.
#include "kernels/attention.h"

#include <algorithm>
#include <string>
#include <vector>

#include "ops/registered.h"
#include "ops/sequences.h"

namespace bertd {
namespace {

// Products of two numbers below which a run stays on its thread: to share it costs more.
constexpr size_t worth_sharing = 400'000;

struct Call {
  const float* q;
  const float* k;
  const float* v;
  float* out;
  size_t q_stride, kv_stride, width;
  size_t heads;
  float scale;
  bool first_only;       // one query a sequence, in row s of q
  ptrdiff_t window;      // keys on either side; below 0 all are seen
  const float* bias;     // of each head, from key - query = 1 - longest on; or null
  size_t bias_stride;    // between heads
  size_t longest;        // tokens of a sequence for which the bias is known
};

class Jobs {
 public:
  Jobs(const Call& call, const Sequences& sequences) : call_(call), sequences_(sequences) {
    ends_.reserve(sequences.count());
    for (size_t turn = 0; turn < sequences.count(); ++turn) {
      const size_t length = sequences.length(sequence(turn));
      const size_t queries = call.first_only ? 1 : length;
      const size_t blocks = (queries + attention_query_block - 1) / attention_query_block;
      ends_.push_back((turn == 0 ? 0 : ends_.back()) + blocks * call.heads);
      const size_t seen = call.window < 0 ? length : std::min<size_t>(length, 2 * call.window + 1);
      products_ += 2 * queries * seen * call.width;
    }
  }

  size_t count() const { return ends_.back(); }
  bool worth_sharing() const { return products_ >= bertd::worth_sharing; }

  void run(const Kernels& kernels, size_t job) const {
    const size_t turn = std::upper_bound(ends_.begin(), ends_.end(), job) - ends_.begin();
    const size_t place = job - (turn == 0 ? 0 : ends_[turn - 1]);
    block(kernels, sequence(turn), place % call_.heads, place / call_.heads);
  }

 private:
  size_t sequence(size_t turn) const { return sequences_.count() - 1 - turn; }

  // Queries of block number of a sequence, nearly as many in each.
  void block(const Kernels& kernels, size_t s, size_t head, size_t number) const {
    const size_t length = sequences_.length(s), begin = sequences_.begin(s);
    const size_t queries = call_.first_only ? 1 : length;
    const size_t blocks = (queries + attention_query_block - 1) / attention_query_block;
    const size_t from = queries * number / blocks, to = queries * (number + 1) / blocks;
    const size_t size = call_.width / call_.heads;
    // Keys that no query of the block sees are left out.
    const ptrdiff_t window = call_.window;
    const ptrdiff_t start = static_cast<ptrdiff_t>(from) - window;
    const size_t first_key = window < 0 || start < 0 ? 0 : static_cast<size_t>(start);
    const size_t last_key = window < 0 ? length : std::min<size_t>(length, to + window);
    const size_t row = call_.first_only ? s : begin + from;

    AttentionBlock block{};
    block.q = call_.q + row * call_.q_stride + head * size;
    block.k = call_.k + (begin + first_key) * call_.kv_stride + head * size;
    block.v = call_.v + (begin + first_key) * call_.kv_stride + head * size;
    block.out = call_.out + row * call_.width + head * size;
    block.q_stride = call_.q_stride;
    block.kv_stride = call_.kv_stride;
    block.out_stride = call_.width;
    block.queries = to - from;
    block.keys = last_key - first_key;
    block.head = size;
    block.scale = call_.scale;
    block.first = window < 0 ? 0 : start - static_cast<ptrdiff_t>(first_key);
    block.step = window < 0 ? 0 : 1;
    if (call_.bias != nullptr) {
      block.bias = call_.bias + head * call_.bias_stride + (call_.longest - 1) + first_key - from;
      block.bias_step = -1;
    }
    block.width = window < 0 ? static_cast<ptrdiff_t>(block.keys) : 2 * window + 1;
    block.scratch = scratch_floats(attention_scratch(block.keys, size));
    kernels.attend(block);
  }

  const Call& call_;
  const Sequences& sequences_;
  std::vector<size_t> ends_;  // of each sequence's jobs, the last sequence's first
  size_t products_ = 0;
};

// Inputs: qkv, float32 [tokens, 3 * width], or q, k and v, [tokens, width] each; then cu_seqlens
// and what else the function is given, which only tells stock operators how to go about it.
class AttentionOp {
 public:
  static constexpr ort::Port inputs[] = {
      {ort::Type::float32},
      {ort::Type::any},
      {ort::Type::any, ort::Presence::optional},
      {ort::Type::int64, ort::Presence::optional},
      {ort::Type::int64, ort::Presence::optional},
      {ort::Type::int64, ort::Presence::optional},
  };
  static constexpr ort::Port outputs[] = {{ort::Type::float32}};

  AttentionOp(const ort::Node& node, const Kernels& kernels)
      : kernels_(kernels), heads_(static_cast<size_t>(node.integer("num_heads"))),
        scale_(node.real("scale")), window_(node.integer_or("window", -1)) {
    if (node.integer("num_heads") < 1) throw ort::Error("num_heads must be at least 1");
  }

 protected:
  void run_on(const ort::Run& run, bool first_only) const {
    Call call{};
    call.first_only = first_only;
    run_call(run, call);
  }

  size_t heads() const { return heads_; }

  // A call that says what is particular; the rest is filled in here.
  void run_call(const ort::Run& run, Call& call) const {
    const ort::Tensor first = run.input(0), second = run.input(1);
    const bool merged = second.type == ort::Type::int64;
    const ort::Tensor v = merged ? first : run.input(2);
    const ort::Tensor& k = merged ? first : second;
    const size_t width = columns(v) / (merged ? 3 : 1);
    if (width == 0 || width % heads_ != 0 || columns(first) != columns(v) ||
        columns(k) != columns(v) || k.sizes[0] != v.sizes[0]) {
      throw ort::Error("q, k and v must have the same width, a multiple of " +
                       std::to_string(heads_) + " heads");
    }
    const Sequences sequences(merged ? second : run.input(3), static_cast<size_t>(v.sizes[0]));
    const size_t expected = call.first_only ? sequences.count() : static_cast<size_t>(v.sizes[0]);
    if (static_cast<size_t>(first.sizes[0]) != expected) {
      throw ort::Error("q must have " + std::to_string(expected) + " rows");
    }
    call.q = first.as<float>();
    call.k = k.as<float>() + (merged ? width : 0);
    call.v = v.as<float>() + (merged ? 2 * width : 0);
    call.out = static_cast<float*>(run.output(0, {first.sizes[0], static_cast<int64_t>(width)}));
    call.q_stride = columns(first);
    call.kv_stride = columns(v);
    call.width = width;
    call.heads = heads_;
    call.scale = scale_;
    call.window = static_cast<ptrdiff_t>(window_);
    if (call.bias != nullptr) check_lengths(sequences, call.longest);
    const Jobs jobs(call, sequences);
    if (!jobs.worth_sharing()) {
      for (size_t job = 0; job < jobs.count(); ++job) jobs.run(kernels_, job);
    } else {
      run.parallel(jobs.count(), [&](size_t job) { jobs.run(kernels_, job); });
    }
  }

 private:
  static void check_lengths(const Sequences& sequences, size_t longest) {
    for (size_t s = 0; s < sequences.count(); ++s) {
      if (sequences.length(s) > longest) {
        throw ort::Error("cu_seqlens has a sequence of " + std::to_string(sequences.length(s)) +
                         " tokens, distances are known for " + std::to_string(longest));
      }
    }
  }

  static size_t columns(const ort::Tensor& x) {
    if (x.type != ort::Type::float32 || x.sizes.size() != 2) {
      throw ort::Error("q, k and v must be float32 of two axes");
    }
    return static_cast<size_t>(x.sizes[1]);
  }

  const Kernels& kernels_;
  size_t heads_;
  float scale_;
  int64_t window_;
};

struct PackedAttention : AttentionOp {
  static constexpr const char* name = "PackedAttention";
  using AttentionOp::AttentionOp;
  void run(const ort::Run& run) const { run_on(run, false); }
};

struct PackedLocalAttention : AttentionOp {
  static constexpr const char* name = "PackedLocalAttention";
  using AttentionOp::AttentionOp;
  void run(const ort::Run& run) const { run_on(run, false); }
};

struct PackedFirstAttention : AttentionOp {
  static constexpr const char* name = "PackedFirstAttention";
  using AttentionOp::AttentionOp;
  void run(const ort::Run& run) const { run_on(run, true); }
};

// After cu_seqlens it has distances, float32 [heads, 2 * longest - 1], a constant: what is added to
// a score for query - key, from 1 - longest on.
class PackedBiasedAttention : AttentionOp {
 public:
  static constexpr const char* name = "PackedBiasedAttention";
  static constexpr ort::Port inputs[] = {
      {ort::Type::float32},
      {ort::Type::any},
      {ort::Type::float32},
      {ort::Type::int64, ort::Presence::optional},
      {ort::Type::float32, ort::Presence::optional},
  };
  using AttentionOp::outputs;

  PackedBiasedAttention(const ort::Node& node, const Kernels& kernels)
      : AttentionOp(node, kernels) {
    const ort::Tensor distances = node.constant(node.inputs() - 1);
    if (!distances || distances.sizes.size() != 2 ||
        distances.sizes[0] != static_cast<int64_t>(heads()) || distances.sizes[1] % 2 != 1) {
      throw ort::Error("distances must be a constant [num_heads, 2 * longest - 1]");
    }
    const auto count = static_cast<size_t>(distances.sizes[1]);
    longest_ = (count + 1) / 2;
    stride_ = count + attention_panel;
    bias_.assign(heads() * stride_, 0.0f);
    for (size_t head = 0; head < heads(); ++head) {  // by key - query, as keys lie side by side
      const float* from = distances.as<float>() + head * count;
      std::reverse_copy(from, from + count, bias_.begin() + head * stride_);
    }
  }

  void run(const ort::Run& run) const {
    Call call{};
    call.bias = bias_.data();
    call.bias_stride = stride_;
    call.longest = longest_;
    run_call(run, call);
  }

 private:
  std::vector<float> bias_;
  size_t stride_ = 0;
  size_t longest_ = 0;
};

}  // namespace

void add_attention(const Kernels& kernels, std::vector<NamedOp>& ops) {
  add<PackedAttention>(kernels, ops);
  add<PackedFirstAttention>(kernels, ops);
  add<PackedLocalAttention>(kernels, ops);
  add<PackedBiasedAttention>(kernels, ops);
}

}  // namespace bertd
