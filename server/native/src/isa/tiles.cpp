#include "isa/kernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bertd {

#if defined(__x86_64__) && defined(__linux__)
namespace {

constexpr unsigned tile = 1u << 24, int8_of_tiles = 1u << 25, bf16_of_tiles = 1u << 22;  // leaf 7, edx
constexpr unsigned bf16 = 1u << 5;                             // of leaf 7.1, eax
constexpr long ask_for_state = 0x1023;                         // ARCH_REQ_XCOMP_PERM
constexpr long state_of_tiles = 18;

// Tiles are 8 KB more for the system to keep with each thread, so that a process has to ask for
// them; what it gets holds for all of its threads, and asking again changes nothing.
bool allowed(unsigned products) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & tile) || !(d & products)) return false;
  return syscall(SYS_arch_prctl, ask_for_state, state_of_tiles) == 0;
}

bool has_bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bf16);
}

}  // namespace

bool bf16_tiles() {
  static const bool found = has_bf16() && allowed(bf16_of_tiles);
  return found;
}

bool int8_tiles() {
  static const bool found = allowed(int8_of_tiles);
  return found;
}
#else
bool bf16_tiles() { return false; }
bool int8_tiles() { return false; }
#endif

}  // namespace bertd
