#include "fibers.h"

#include <link.h>
#include <sys/mman.h>

#include <mutex>
#include <new>
#include <vector>

namespace emulator {

namespace {

constexpr size_t kStack = 64 * 1024;  // the compiler refuses frames above a quarter of it

std::mutex unused_mutex;
std::vector<uint8_t*> unused;  // stacks, for the next launch

thread_local volatile char any_variable;  // written to, so that the thread has its variables

struct Fixed {
  uint8_t* begin = nullptr;
  size_t bytes = 0;
};
int find(dl_phdr_info* library, size_t, void* result) {
  const uintptr_t here = reinterpret_cast<uintptr_t>(&unused);
  bool ours = false;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& part = library->dlpi_phdr[i];
    ours |= part.p_type == PT_LOAD && here - library->dlpi_addr - part.p_vaddr < part.p_memsz;
  }
  for (int i = 0; ours && i < library->dlpi_phnum; ++i)
    if (library->dlpi_phdr[i].p_type == PT_TLS)
      *static_cast<Fixed*>(result) = {static_cast<uint8_t*>(library->dlpi_tls_data), library->dlpi_phdr[i].p_memsz};
  return ours;
}

}  // namespace

void find_fixed_memory(uint8_t*& begin, size_t& bytes) {
  any_variable = 0;
  Fixed fixed;
  dl_iterate_phdr(find, &fixed);
  begin = fixed.begin, bytes = fixed.bytes;
}

uint8_t* take_stacks() {
  std::lock_guard<std::mutex> lock(unused_mutex);
  if (!unused.empty()) {
    uint8_t* stacks = unused.back();
    unused.pop_back();
    return stacks;
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* stacks = mmap(nullptr, kStack * kMaxThreads, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (stacks == MAP_FAILED) throw std::bad_alloc();
  return static_cast<uint8_t*>(stacks);
}

void give_back(uint8_t* stacks) {
  std::lock_guard<std::mutex> lock(unused_mutex);
  unused.push_back(stacks);
}

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)

extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.globl emulator_switch
.hidden emulator_switch
emulator_switch:
  push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
  ret
)");

void prepare(Context& context, uint8_t* stacks, size_t thread, void (*entry)()) {
  const size_t shift = thread * 1088 % 8192;  // else all fibers share a few lines of the cache
  void** top = reinterpret_cast<void**>(stacks + (thread + 1) * kStack - shift);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context = top;
}
void go(Context& from, Context& to) { emulator_switch(&from, to); }

#else

void prepare(Context& context, uint8_t* stacks, size_t thread, void (*entry)()) {
  getcontext(&context);
  context.uc_stack = {};
  context.uc_stack.ss_sp = stacks + thread * kStack;
  context.uc_stack.ss_size = kStack - thread * 1088 % 8192;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
void go(Context& from, Context& to) { swapcontext(&from, &to); }

#endif

}  // namespace emulator
