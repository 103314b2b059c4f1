// From a class of ours to an operator of ONNX Runtime.
//
// A kernel is a class with
//
//   static constexpr const char* name;          the operator's, in the domain "bertd"
//   static constexpr Port inputs[], outputs[];  their types, in order
//   Kernel(const Node& node, const Kernels& kernels);  once a session: attributes, constants
//   void run(Run& run) const;                   any number of threads at once; no state
//
// and Op<Kernel> is what ONNX Runtime is given. What a constructor or run() throws becomes the
// error of the session or the run. A job of Run::parallel must not throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

#include "isa/kernels.h"
#include "ort/api.h"

namespace bertd::ort {

struct Port {
  Type type;
  Presence presence = Presence::required;
};

// A tensor: where its elements lie and how many there are along each axis.
struct Tensor {
  Type type = Type::any;
  const void* data = nullptr;  // null for an optional input that is not there
  std::vector<int64_t> sizes;

  explicit operator bool() const { return data != nullptr; }
  size_t elements() const {
    size_t count = 1;
    for (int64_t size : sizes) count *= static_cast<size_t>(size);
    return count;
  }
  template <class Element>
  const Element* as() const {
    return static_cast<const Element*>(data);
  }
};

Tensor describe(const Api& api, const Value* value);

// A node of the graph while its kernel is made.
class Node {
 public:
  Node(const Api& api, const Info* info) : api(api), info_(info) {}

  int64_t integer(const char* name) const;
  float real(const char* name) const;
  // The value of an attribute that may be absent.
  int64_t integer_or(const char* name, int64_t otherwise) const;
  float real_or(const char* name, float otherwise) const;
  size_t inputs() const;
  // An input that is a constant of the graph; empty where it is none. Its data lives as long as
  // the session.
  Tensor constant(size_t index) const;

  const Api api;

 private:
  const Info* info_;
};

// One run of a node.
class Run {
 public:
  Run(const Api& api, Context* context) : api_(api), context_(context) {}

  size_t inputs() const;
  Tensor input(size_t index) const;  // empty where it is not there
  void* output(size_t index, std::initializer_list<int64_t> sizes) const {
    return output(index, sizes.begin(), sizes.size());
  }
  void* output(size_t index, const int64_t* sizes, size_t rank) const;

  // Calls job(i) for each i below jobs, on the session's threads. It must not throw.
  template <class Job>
  void parallel(size_t jobs, const Job& job) const {
    auto call = [](void* user, size_t index) { (*static_cast<const Job*>(user))(index); };
    if (jobs == 1) return job(0);
    api_.check(api_.parallel_for(context_, call, jobs, const_cast<Job*>(&job)));
  }

 private:
  const Api& api_;
  Context* context_;
};

// An operator for one instruction set. It is never destroyed: sessions refer to it.
template <class Kernel>
class Op : public OpTable {
 public:
  explicit Op(const Kernels& kernels) : OpTable{}, kernels_(kernels) {
    version = api_version;
    name = [](const OpTable*) { return Kernel::name; };
    provider = [](const OpTable*) -> const char* { return "CPUExecutionProvider"; };
    input_type = [](const OpTable*, size_t i) { return Kernel::inputs[i].type; };
    input_count = [](const OpTable*) { return std::size(Kernel::inputs); };
    output_type = [](const OpTable*, size_t i) { return Kernel::outputs[i].type; };
    output_count = [](const OpTable*) { return std::size(Kernel::outputs); };
    input_presence = [](const OpTable*, size_t i) { return Kernel::inputs[i].presence; };
    output_presence = [](const OpTable*, size_t i) { return Kernel::outputs[i].presence; };
    input_memory = [](const OpTable*, size_t) { return 0; };
    variadic_input_minimum = [](const OpTable*) { return 1; };
    variadic_input_same = [](const OpTable*) { return 1; };
    variadic_output_minimum = [](const OpTable*) { return 1; };
    variadic_output_same = [](const OpTable*) { return 1; };
    create_checked = make;
    compute_checked = compute_one;
    destroy = [](void* made) { delete static_cast<Made*>(made); };
    first_version = [](const OpTable*) { return 1; };
    last_version = [](const OpTable*) { return 1 << 30; };
  }

 private:
  struct Made {
    Api api;
    Kernel kernel;
  };

  static Status* make(const OpTable* op, const void* const* table, const Info* info, void** made) {
    const Api api(table);
    try {
      *made = new Made{api, Kernel(Node(api, info), static_cast<const Op*>(op)->kernels_)};
      return nullptr;
    } catch (const std::exception& error) {
      return api.status((std::string("bertd::") + Kernel::name + ": " + error.what()).c_str());
    }
  }

  static Status* compute_one(void* made, Context* context) {
    const Made& self = *static_cast<Made*>(made);
    try {
      Run run(self.api, context);
      self.kernel.run(run);
      return nullptr;
    } catch (const std::exception& error) {
      return self.api.status((std::string("bertd::") + Kernel::name + ": " + error.what()).c_str());
    }
  }

  const Kernels& kernels_;
};

}  // namespace bertd::ort
