#include "ort/op.h"

namespace bertd::ort {

Tensor describe(const Api& api, const Value* value) {
  Tensor tensor;
  if (value == nullptr) return tensor;
  Shape* shape = nullptr;
  api.check(api.shape(value, &shape));
  size_t rank = 0;
  Status* problem = api.rank(shape, &rank);
  if (problem == nullptr) problem = api.element_type(shape, &tensor.type);
  if (problem == nullptr) {
    tensor.sizes.resize(rank);
    problem = api.sizes(shape, tensor.sizes.data(), rank);
  }
  api.release(shape);
  api.check(problem);
  void* data = nullptr;
  api.check(api.data(value, &data));
  tensor.data = data;
  return tensor;
}

int64_t Node::integer(const char* name) const {
  int64_t value = 0;
  api.check(api.integer(info_, name, &value));
  return value;
}

float Node::real(const char* name) const {
  float value = 0;
  api.check(api.real(info_, name, &value));
  return value;
}

int64_t Node::integer_or(const char* name, int64_t otherwise) const {
  int64_t value = 0;
  Status* problem = api.integer(info_, name, &value);
  if (problem == nullptr) return value;
  api.release(problem);
  return otherwise;
}

float Node::real_or(const char* name, float otherwise) const {
  float value = 0;
  Status* problem = api.real(info_, name, &value);
  if (problem == nullptr) return value;
  api.release(problem);
  return otherwise;
}

size_t Node::inputs() const {
  size_t count = 0;
  api.check(api.input_count(info_, &count));
  return count;
}

Tensor Node::constant(size_t index) const {
  int is_constant = 0;
  const Value* value = nullptr;
  api.check(api.constant(info_, index, &is_constant, &value));
  return is_constant ? describe(api, value) : Tensor{};
}

size_t Run::inputs() const {
  size_t count = 0;
  api_.check(api_.input_count(context_, &count));
  return count;
}

Tensor Run::input(size_t index) const {
  const Value* value = nullptr;
  api_.check(api_.input(context_, index, &value));
  return describe(api_, value);
}

void* Run::output(size_t index, const int64_t* sizes, size_t rank) const {
  Value* value = nullptr;
  api_.check(api_.output(context_, index, sizes, rank, &value));
  void* data = nullptr;
  api_.check(api_.data(value, &data));
  return data;
}

}  // namespace bertd::ort
