// Tiles of AMX: eight, each of up to 16 rows of 64 bytes. What a thread configures it releases
// before its job ends, so that nobody else finds them, and switching threads does not save them.
//
// The compiler knows nothing of tiles, nor that these read memory: each is a barrier to it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bertd {

// Rows of the eight tiles, which are all 64 bytes wide.
struct TileRows {
  size_t of[8];
};

inline void configure_tiles(const TileRows& rows) {
  struct alignas(64) Configuration {
    uint8_t palette;
    uint8_t start;
    uint8_t reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Configuration) == 64);
  Configuration wanted{};
  wanted.palette = 1;
  for (size_t i = 0; i < 8; ++i) {
    wanted.bytes[i] = 64;
    wanted.rows[i] = static_cast<uint8_t>(rows.of[i]);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(wanted) : "memory");
}

inline void release_tiles() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int tile>
inline void load_tile(const void* from, size_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(from), "r"(stride), "i"(tile)
                   : "memory");
}

template <int tile>
inline void store_tile(void* to, size_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(to), "r"(stride), "i"(tile)
                   : "memory");
}

// sums += a x b: unsigned bytes times signed ones.
template <int sums, int a, int b>
inline void multiply_tiles() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
}

// Whether this CPU has tiles with products of bytes, and the system lets this process use them.
bool may_use_tiles();

}  // namespace bertd
