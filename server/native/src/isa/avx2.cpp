// Compiled with -mavx2 -mfma: nothing here may run before the choice, and nothing that other files
// share (functions of std, say) may be instantiated here, or they might get this copy of it.
#include "isa/table.h"
#include "isa/vector_avx2.h"

namespace bertd {

constexpr Kernels avx2 = table_of<Avx2Vector>("avx2");

}  // namespace bertd
