// Runs every test on every instruction set of this CPU; ends with 1 at the first that fails.
#include <cstdio>
#include <exception>

#include "tests.h"

int main() {
  for (const char* isa : {"portable", "avx2", "avx512", "amx"}) {
    const bertd::Kernels* kernels = bertd::find_kernels(isa);
    if (kernels == nullptr) {
      std::printf("%s: not on this CPU\n", isa);
      continue;
    }
    for (const bertd::tests::Test& test : bertd::tests::all()) {
      try {
        test.run(*kernels);
        std::printf("%s: %s\n", isa, test.name);
      } catch (const std::exception& error) {
        std::printf("%s: %s FAILED: %s\n", isa, test.name, error.what());
        return 1;
      }
    }
  }
  return 0;
}
