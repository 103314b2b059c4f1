// AMX's tiles: eight registers of up to 16 rows of 64 bytes. A job configures them, and releases
// them at its end, so that the system has none to keep for the thread afterwards.
//
// In assembly, because GCC 12 moves stores past the intrinsics that load.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bertd::tiles {

// Rows of each tile; all are 64 bytes wide.
struct Rows {
  size_t of[8] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline void configure(const Rows& rows = {}) {
  struct alignas(64) {
    uint8_t palette = 1, first_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
  } config;
  for (size_t i = 0; i < 8; ++i) config.rows[i] = static_cast<uint8_t>(rows.of[i]);
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}
inline void release() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int tile>
inline void zero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
}
// Rows lie stride bytes apart; with a stride of 0 all are the first.
template <int tile>
inline void load(const void* from, size_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
inline void store(void* to, size_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
}
// sum += a times b, in bfloat16.
template <int sum, int a, int b>
inline void multiply() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
}
// sum += a times b, unsigned bytes times signed ones.
template <int sum, int a, int b>
inline void multiply_bytes() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
}

}  // namespace bertd::tiles
