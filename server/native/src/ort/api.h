// The part of ONNX Runtime's C API that the kernels use.
//
// The API is a table of functions to which slots are only ever appended, so that a slot's number
// is as stable as the API itself. Declared here are the slots that are called, each with its type,
// and the one structure that describes an operator. Nothing of ONNX Runtime is needed to build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace bertd::ort {

// Opaque types; ONNX Runtime hands out pointers to them.
struct Status;
struct Value;
struct Shape;
struct Info;  // a node, while its kernel is made
struct Context;  // a node, while it runs
struct Options;
struct Domain;

// Version of the table in which the newest slot below appeared; ONNX Runtime 1.17.
constexpr uint32_t api_version = 17;

struct ApiBase {
  const void* const* (*table)(uint32_t version);  // null if this ONNX Runtime is older
  const char* (*version)();
};

enum class Type : int { any = 0, float32 = 1, uint8 = 2, int8 = 3, int32 = 6, int64 = 7 };
enum class Presence : int { required = 0, optional = 1 };

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The table, with a typed method for each slot that is used.
class Api {
 public:
  Api() = default;
  explicit Api(const void* const* table) : table_(table) {}

  Status* status(const char* message) const {
    constexpr int failed = 1;
    return at<Status*(int, const char*)>(0)(failed, message);
  }
  const char* message(const Status* status) const {
    return at<const char*(const Status*)>(2)(status);
  }
  void release(Status* status) const { at<void(Status*)>(93)(status); }

  Status* create_domain(const char* name, Domain** domain) const {
    return at<Status*(const char*, Domain**)>(26)(name, domain);
  }
  Status* add_op(Domain* domain, const void* op) const {
    return at<Status*(Domain*, const void*)>(27)(domain, op);
  }
  Status* add_domain(Options* options, Domain* domain) const {
    return at<Status*(Options*, Domain*)>(28)(options, domain);
  }
  Status* has_entry(const Options* options, const char* key, int* has) const {
    return at<Status*(const Options*, const char*, int*)>(237)(options, key, has);
  }
  Status* entry(const Options* options, const char* key, char* value, size_t* size) const {
    return at<Status*(const Options*, const char*, char*, size_t*)>(238)(options, key, value, size);
  }

  Status* data(const Value* value, void** data) const {
    return at<Status*(const Value*, void**)>(51)(value, data);
  }
  Status* element_type(const Shape* shape, Type* type) const {
    return at<Status*(const Shape*, Type*)>(60)(shape, type);
  }
  Status* rank(const Shape* shape, size_t* rank) const {
    return at<Status*(const Shape*, size_t*)>(61)(shape, rank);
  }
  Status* sizes(const Shape* shape, int64_t* sizes, size_t rank) const {
    return at<Status*(const Shape*, int64_t*, size_t)>(62)(shape, sizes, rank);
  }
  Status* shape(const Value* value, Shape** shape) const {
    return at<Status*(const Value*, Shape**)>(65)(value, shape);
  }
  void release(Shape* shape) const { at<void(Shape*)>(99)(shape); }

  Status* real(const Info* info, const char* name, float* value) const {
    return at<Status*(const Info*, const char*, float*)>(85)(info, name, value);
  }
  Status* integer(const Info* info, const char* name, int64_t* value) const {
    return at<Status*(const Info*, const char*, int64_t*)>(86)(info, name, value);
  }
  Status* text(const Info* info, const char* name, char* value, size_t* size) const {
    return at<Status*(const Info*, const char*, char*, size_t*)>(87)(info, name, value, size);
  }
  Status* input_count(const Info* info, size_t* count) const {
    return at<Status*(const Info*, size_t*)>(230)(info, count);
  }
  Status* constant(const Info* info, size_t index, int* is_constant, const Value** value) const {
    return at<Status*(const Info*, size_t, int*, const Value**)>(249)(info, index, is_constant,
                                                                     value);
  }

  Status* input_count(const Context* context, size_t* count) const {
    return at<Status*(const Context*, size_t*)>(88)(context, count);
  }
  Status* input(const Context* context, size_t index, const Value** value) const {
    return at<Status*(const Context*, size_t, const Value**)>(90)(context, index, value);
  }
  Status* output(Context* context, size_t index, const int64_t* sizes, size_t rank,
                 Value** value) const {
    return at<Status*(Context*, size_t, const int64_t*, size_t, Value**)>(91)(context, index, sizes,
                                                                             rank, value);
  }
  // Runs job(user, i) for i below jobs on the session's threads and returns when all are done.
  // Two jobs may run on one thread, one after the other: none may wait for another.
  Status* parallel_for(const Context* context, void (*job)(void*, size_t), size_t jobs,
                       void* user) const {
    constexpr size_t batches = 0;  // each free thread takes the next job
    return at<Status*(const Context*, void (*)(void*, size_t), size_t, size_t, void*)>(274)(
        context, job, jobs, batches, user);
  }

  // Throws what a status says; none is success.
  void check(Status* status) const {
    if (status == nullptr) return;
    std::string said = message(status);
    release(status);
    throw Error(said);
  }

 private:
  template <class Function>
  Function* at(size_t slot) const {
    return reinterpret_cast<Function*>(const_cast<void*>(table_[slot]));
  }

  const void* const* table_ = nullptr;
};

// How an operator is described to ONNX Runtime, in the layout of its version 17.
struct OpTable {
  uint32_t version;
  void* (*create)(const OpTable*, const void* const*, const Info*);  // older form; unused
  const char* (*name)(const OpTable*);
  const char* (*provider)(const OpTable*);
  Type (*input_type)(const OpTable*, size_t);
  size_t (*input_count)(const OpTable*);
  Type (*output_type)(const OpTable*, size_t);
  size_t (*output_count)(const OpTable*);
  void (*compute)(void*, Context*);  // older form; unused
  void (*destroy)(void*);
  Presence (*input_presence)(const OpTable*, size_t);
  Presence (*output_presence)(const OpTable*, size_t);
  int (*input_memory)(const OpTable*, size_t);
  int (*variadic_input_minimum)(const OpTable*);
  int (*variadic_input_same)(const OpTable*);
  int (*variadic_output_minimum)(const OpTable*);
  int (*variadic_output_same)(const OpTable*);
  Status* (*create_checked)(const OpTable*, const void* const*, const Info*, void**);
  Status* (*compute_checked)(void*, Context*);
  Status* (*infer_shape)(const OpTable*, void*);
  int (*first_version)(const OpTable*);
  int (*last_version)(const OpTable*);
};

}  // namespace bertd::ort
