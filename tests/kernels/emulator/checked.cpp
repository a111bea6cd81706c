// What g++ calls where -fsanitize finds an access that is misaligned or outside of an array: its own library for it
// would end the process.
#include "threads.h"

namespace {

struct Place {
  const char* file;
  uint32_t line, column;
  operator emulator::Where() const { return {file, static_cast<int>(line)}; }
};
struct Type {
  uint16_t kind, info;
  char name[1];
};
struct TypeMismatch {
  Place place;
  const Type* type;
  uint8_t log_alignment, access;
};
struct OutOfBounds {
  Place place;
  const Type *array, *index;
};

}  // namespace

extern "C" void __ubsan_handle_type_mismatch_v1_abort(const TypeMismatch* found, uintptr_t pointer) {
  emulator::fail("address " + std::to_string(pointer) + " is not aligned to " + std::to_string(1 << found->log_alignment) +
                   " bytes, as " + found->type->name + " has to be", found->place);
}
extern "C" void __ubsan_handle_out_of_bounds_abort(const OutOfBounds* found, intptr_t index) {
  emulator::fail("index " + std::to_string(index) + " of " + found->array->name, found->place);
}
