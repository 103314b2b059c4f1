#include "isa/table.h"
#include "isa/vector_portable.h"

namespace bertd {

constexpr Kernels portable = table_of<PortableVector>("portable");

}  // namespace bertd
