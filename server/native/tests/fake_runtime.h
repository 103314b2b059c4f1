// So much of ONNX Runtime that an operator runs without it: under sanitizers, which see all of the
// program then, and with arrays that end where their elements end.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "ops/registered.h"

namespace bertd::ort {

// What the opaque types are here.
struct Status {
  std::string message;
};
struct Shape {
  Type type;
  std::vector<int64_t> sizes;
};
struct Value {
  Shape shape;
  std::unique_ptr<char[]> bytes;
};
struct Info {
  std::map<std::string, int64_t> integers;
  std::map<std::string, float> reals;
  std::map<size_t, Value> constants;
  size_t inputs = 0;
};
struct Context {
  std::vector<Value> inputs;
  Value output;
  size_t threads = 1;
};

}  // namespace bertd::ort

namespace bertd::fake {

using namespace ort;

inline size_t bytes_of(Type type) {
  switch (type) {
    case Type::uint8:
    case Type::int8:
      return 1;
    case Type::int64:
      return 8;
    default:
      return 4;
  }
}

inline Value value(Type type, std::vector<int64_t> sizes, const void* from = nullptr) {
  size_t count = 1;
  for (int64_t size : sizes) count *= static_cast<size_t>(size);
  const size_t bytes = count * bytes_of(type);
  Value made{{type, std::move(sizes)}, std::unique_ptr<char[]>(new char[bytes])};
  if (from != nullptr) std::memcpy(made.bytes.get(), from, bytes);
  return made;
}
inline Value floats(std::vector<int64_t> sizes, const std::vector<float>& from) {
  return value(Type::float32, std::move(sizes), from.data());
}
inline Value integers(const std::vector<int64_t>& from) {
  return value(Type::int64, {static_cast<int64_t>(from.size())}, from.data());
}

template <class Number>
Status* look_up(const std::map<std::string, Number>& numbers, const char* name, Number* value) {
  const auto found = numbers.find(name);
  if (found == numbers.end()) return new Status{std::string("no attribute ") + name};
  *value = found->second;
  return nullptr;
}

inline Status* parallel_for(const Context* context, void (*job)(void*, size_t), size_t jobs,
                            size_t, void* user) {
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i = next++; i < jobs; i = next++) job(user, i);
  };
  std::vector<std::thread> others;
  for (size_t t = 1; t < context->threads; ++t) others.emplace_back(work);
  work();
  for (auto& other : others) other.join();
  return nullptr;
}

template <class Result, class... Arguments>
const void* slot(Result (*function)(Arguments...)) {
  return reinterpret_cast<const void*>(function);
}

// The slots that kernels call; those of registration stay empty.
inline const void* const* table() {
  static const void* slots[275] = {};
  slots[0] = slot(+[](int, const char* said) { return new Status{said}; });
  slots[2] = slot(+[](const Status* status) { return status->message.c_str(); });
  slots[93] = slot(+[](Status* status) { delete status; });
  slots[51] = slot(+[](const Value* value, void** data) -> Status* {
    *data = value->bytes.get();
    return nullptr;
  });
  slots[60] = slot(+[](const Shape* shape, Type* type) -> Status* {
    *type = shape->type;
    return nullptr;
  });
  slots[61] = slot(+[](const Shape* shape, size_t* rank) -> Status* {
    *rank = shape->sizes.size();
    return nullptr;
  });
  slots[62] = slot(+[](const Shape* shape, int64_t* sizes, size_t rank) -> Status* {
    for (size_t i = 0; i < rank; ++i) sizes[i] = shape->sizes[i];
    return nullptr;
  });
  slots[65] = slot(+[](const Value* value, Shape** shape) -> Status* {
    *shape = new Shape(value->shape);
    return nullptr;
  });
  slots[99] = slot(+[](Shape* shape) { delete shape; });
  slots[85] = slot(+[](const Info* info, const char* name, float* value) {
    return look_up(info->reals, name, value);
  });
  slots[86] = slot(+[](const Info* info, const char* name, int64_t* value) {
    return look_up(info->integers, name, value);
  });
  slots[230] = slot(+[](const Info* info, size_t* count) -> Status* {
    *count = info->inputs;
    return nullptr;
  });
  slots[249] = slot(+[](const Info* info, size_t index, int* is_constant,
                        const Value** value) -> Status* {
    const auto found = info->constants.find(index);
    *is_constant = found != info->constants.end();
    *value = *is_constant ? &found->second : nullptr;
    return nullptr;
  });
  slots[88] = slot(+[](const Context* context, size_t* count) -> Status* {
    *count = context->inputs.size();
    return nullptr;
  });
  slots[90] = slot(+[](const Context* context, size_t index, const Value** value) -> Status* {
    *value = index < context->inputs.size() ? &context->inputs[index] : nullptr;
    return nullptr;
  });
  slots[91] = slot(+[](Context* context, size_t, const int64_t* sizes, size_t rank,
                       Value** value) -> Status* {
    context->output = fake::value(Type::float32, {sizes, sizes + rank});
    *value = &context->output;
    return nullptr;
  });
  slots[274] = slot(parallel_for);
  return slots;
}

// Runs an operator once. Throws ort::Error with what it says where it fails.
inline std::vector<float> run(const OpTable& op, const Info& info, Context& context) {
  const Api api(table());
  void* kernel = nullptr;
  api.check(op.create_checked(&op, table(), &info, &kernel));
  Status* problem = op.compute_checked(kernel, &context);
  op.destroy(kernel);
  api.check(problem);
  const auto* from = reinterpret_cast<const float*>(context.output.bytes.get());
  size_t count = 1;
  for (int64_t size : context.output.shape.sizes) count *= static_cast<size_t>(size);
  return {from, from + count};
}

}  // namespace bertd::fake
