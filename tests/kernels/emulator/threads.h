// An emulated GPU, as far as the threads of a kernel see it. The threads of a block are fibers of one thread of the
// operating system, so that a __shared__ variable is a thread_local one. One block of a cluster runs at a time, one
// fiber of it, until it has to wait: everything is in the same order every time, and a deadlock is seen at once.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#include <ucontext.h>
#endif

extern uint3 threadIdx, blockIdx;  // of the fiber that runs
extern dim3 blockDim, gridDim;

namespace emulator {

struct Where {
  const char* file;
  int line;
};
#define WHERE emulator::Where where = {__builtin_FILE(), __builtin_LINE()}  // as the last parameter: of the caller

// What is to be written, and the mbarrier that counts it, as shared addresses.
struct Message {
  uint32_t to, barrier;
  std::string bytes;
  Where sent;
};

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
using Context = void*;  // the stack pointer; all else lies on the stack
#else
using Context = ucontext_t;
#endif

struct Fiber {
  Context context;
  uint3 index;
  bool ended = false;
  // What it waits for: whether it may go on, and where it stands.
  bool (*ready)(const void*) = nullptr;
  const void* condition = nullptr;
  const char* what = "";
  Where where = {};
  unsigned collectives = 0;                       // of its warp that it took part in
  unsigned cluster_arrivals = 0, cluster_waits = 0;
  std::vector<std::pair<void*, uint4>> copies;  // cp.async under way
};

// Two collectives in turn: nobody is at the one after the next before all have left this one.
struct Warp {
  uint64_t given[2][32];
  int arrived[2] = {0, 0};
  Where where[2];
};

struct Cluster;

struct Block {
  Cluster* cluster;
  uint3 index;
  int rank;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Fiber* current = nullptr;  // none: the scheduler
  Context scheduler;
  uint8_t *fixed, *dynamic;  // shared memory: the thread_local variables; extern __shared__
  size_t fixed_bytes, dynamic_bytes;
  std::vector<uint32_t> barriers;
  int running;
  int synced = 0, yes = 0;  // threads at __syncthreads, and those that say yes there
  unsigned syncs = 0;
  bool any = false;
  Where sync_where;
};

struct Cluster {
  dim3 grid, threads;
  std::vector<Block*> blocks;
  std::deque<Message> messages;
  bool backwards;
  int ended = 0, idle = 0;  // blocks that have ended; turns without progress
  unsigned arrived = 0, phase = 0;
};

extern Block* block;  // that runs

inline Fiber& self() { return *block->current; }

// Ends the launch; it then returns cudaErrorLaunchFailure.
[[noreturn]] void fail(const std::string& problem, Where where);
void leave_to_scheduler();

// Others run until `ready`.
template <typename Ready>
void wait(const Ready& ready, const char* what, Where where) {
  asm volatile("" ::: "memory");  // others write to shared memory meanwhile
  if (!ready()) {
    Fiber& f = self();
    f.ready = [](const void* condition) { return (*static_cast<const Ready*>(condition))(); };
    f.condition = &ready, f.what = what, f.where = where;
    leave_to_scheduler();
  }
  asm volatile("" ::: "memory");
}

// All lanes give a value; returns the 32 of them. Lanes that come from different lines of the source are an error.
const uint64_t* exchange(uint64_t value, const char* what, Where where);

// Of kernels with __cluster_dims__, as their first statement.
void require_cluster(unsigned size);
void* dynamic_shared_memory();

// 32 bits, as in PTX: offset in the block's memory, and with mapa the rank + 1 in the upper byte.
uint32_t shared_address(const void* pointer, Where where);
uint8_t* shared_memory(uint32_t address, size_t bytes, Where where);

void cluster_arrive(Where where);
void cluster_wait(Where where);
void* in_block(void* pointer, unsigned rank, Where where);
bool sync_block(bool yes, Where where);

void init_barrier(uint32_t address, unsigned count, Where where);
void expect_bytes(uint32_t address, uint32_t bytes, Where where);
void wait_for_barrier(uint32_t address, uint32_t parity, Where where);
void send(uint32_t to, uint32_t barrier, const void* from, size_t bytes, Where where);
// For the scheduler. Whether there were messages on their way; `problem` stays empty if all is well.
bool deliver_all(Cluster& cluster, std::string& problem);
std::string describe(const Cluster& cluster);  // where its threads stand
void check_finished(const Block& ended, std::string& problem);

}  // namespace emulator
