// What ONNX Runtime calls when a session registers the library, and what Python asks it.
//
// A session's options say what it gets (SessionOptions.add_session_config_entry):
//
//   bertd.native.ops   names of operators, joined by commas; without it, all
//   bertd.native.isa   name of an instruction set; without it, "auto"
//   bertd.native.attention   "bf16": products of attention have that precision; without it, "fp32"
//
// An operator that is registered takes the place of the graph's function of that name, which
// cannot be undone once the graph is read: whoever opens the session names those that fit it.
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ops/registered.h"

namespace bertd {
namespace {

std::vector<NamedOp> all_ops(const Kernels& kernels) {
  std::vector<NamedOp> ops;
  add_attention(kernels, ops);
  add_fp32_linear(kernels, ops);
  add_int8_linear(kernels, ops);
  add_pooling(kernels, ops);
  return ops;
}

bool has_bf16(const Kernels& kernels) { return kernels.attend_bf16 != nullptr && bf16_tiles(); }

// The operators of an instruction set, with attention in bf16 or not, made at their first use.
const std::vector<NamedOp>& ops_of(const Kernels& kernels, bool bf16 = false) {
  static std::mutex making;
  static auto& made = *new std::map<std::pair<std::string, bool>, std::vector<NamedOp>>;
  const std::lock_guard<std::mutex> held(making);
  auto [place, is_new] = made.try_emplace({kernels.isa, bf16});
  if (is_new) {
    auto& table = *new Kernels(kernels);  // operators refer to it, and are never destroyed
    if (bf16) table.attend = table.attend_bf16;
    place->second = all_ops(table);
  }
  return place->second;
}

std::string option(const ort::Api& api, const ort::Options* options, const char* key,
                   const char* otherwise) {
  int has = 0;
  api.check(api.has_entry(options, key, &has));
  if (!has) return otherwise;
  size_t size = 0;
  api.check(api.entry(options, key, nullptr, &size));
  std::string value(size, '\0');
  api.check(api.entry(options, key, value.data(), &size));
  value.resize(size - 1);  // the size counts a closing zero
  return value;
}

bool named(const std::string& names, const std::string& name) {
  return ("," + names + ",").find("," + name + ",") != std::string::npos;
}

void add_ops(const ort::Api& api, ort::Options* options) {
  const std::string isa = option(api, options, "bertd.native.isa", "auto");
  const std::string names = option(api, options, "bertd.native.ops", "*");
  const Kernels* kernels = find_kernels(isa);
  if (kernels == nullptr) throw ort::Error("bertd.native.isa " + isa + " does not run here");
  const std::string attention = option(api, options, "bertd.native.attention", "fp32");
  if (attention != "fp32" && attention != "bf16") {
    throw ort::Error("bertd.native.attention is " + attention + ", and must be fp32 or bf16");
  }
  const bool bf16 = attention == "bf16";
  if (bf16 && !has_bf16(*kernels)) {
    throw ort::Error("bertd.native.attention bf16 does not run here with " +
                     std::string(kernels->isa));
  }
  ort::Domain* domain = nullptr;  // sessions refer to it; it is as small as the list of its names
  api.check(api.create_domain("bertd", &domain));
  for (const NamedOp& op : ops_of(*kernels, bf16)) {
    if (names == "*" || named(names, op.name)) api.check(api.add_op(domain, op.op));
  }
  api.check(api.add_domain(options, domain));
}

}  // namespace
}  // namespace bertd

extern "C" {

__attribute__((visibility("default"))) bertd::ort::Status* RegisterCustomOps(
    bertd::ort::Options* options, const bertd::ort::ApiBase* base) {
  const void* const* table = base->table(bertd::ort::api_version);
  if (table == nullptr) {  // no status can be made without a table: the oldest one will do
    return bertd::ort::Api(base->table(1)).status("bertd-native needs ONNX Runtime 1.17 or newer");
  }
  const bertd::ort::Api api(table);
  try {
    bertd::add_ops(api, options);
    return nullptr;
  } catch (const std::exception& error) {
    return api.status((std::string("bertd-native: ") + error.what()).c_str());
  }
}

// Name of the instruction set that "auto" or a name gives on this CPU; null where there is none.
__attribute__((visibility("default"))) const char* bertd_native_isa(const char* wanted) {
  const bertd::Kernels* kernels = bertd::find_kernels(wanted);
  return kernels == nullptr ? nullptr : kernels->isa;
}

// Whether attention in bf16 runs here beside that instruction set.
__attribute__((visibility("default"))) int bertd_native_bf16_attention(const char* isa) {
  const bertd::Kernels* kernels = bertd::find_kernels(isa);
  return kernels != nullptr && bertd::has_bf16(*kernels);
}

// Calls back with the name of each operator that an instruction set has.
__attribute__((visibility("default"))) void bertd_native_ops(const char* isa,
                                                             void (*name)(const char*)) {
  const bertd::Kernels* kernels = bertd::find_kernels(isa);
  if (kernels == nullptr) return;
  for (const auto& op : bertd::ops_of(*kernels)) name(op.name.c_str());
}

}
