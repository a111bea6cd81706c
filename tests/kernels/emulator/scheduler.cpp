// Runs the blocks of a launch: clusters one after another, in each one block at a time and one fiber of it.
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>

#include "fibers.h"
#include "threads.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

Block* block = nullptr;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMemory = 227 * 1024;  // shared, of a block on Hopper
constexpr int kGarbage = 0xff;          // NaN in all float types
constexpr Where kUnknown = {"somewhere", 0};
constexpr int kTimeLimit_s = 10;        // for a thread that neither ends nor waits

struct Launch {
  const cudaLaunchConfig_t& config;
  const std::function<void()>& thread;
  size_t cluster_size, wanted_cluster_size;
  std::vector<Cluster> clusters = {};
  std::mutex mutex = {};
  std::condition_variable turns = {};
  size_t turn = 0, working = 0, steps = 0;
  pthread_t worker = {};  // that has the turn
  bool failed = false;
};

Launch* launched = nullptr;
bool backwards = false;  // the order of threads and blocks
struct {
  char text[4096];
  uintptr_t address, code;  // of an access to memory that isn't there, and of the instruction; 0: none
} problem;

void entry() {
  launched->thread();
  self().ended = true;
  leave_to_scheduler();
}

void set_up(Launch& launch, Block& b, Cluster& cluster, uint3 index, int rank, uint8_t* stacks, uint8_t* dynamic) {
  b.cluster = &cluster, b.index = index, b.rank = rank, b.running = launch.config.blockDim.x;
  find_fixed_memory(b.fixed, b.fixed_bytes);
  b.dynamic = dynamic, b.dynamic_bytes = launch.config.dynamicSmemBytes;
  memset(b.fixed, kGarbage, b.fixed_bytes);
  memset(b.dynamic, kGarbage, b.dynamic_bytes);
  b.fibers.resize(launch.config.blockDim.x);
  b.warps.resize(launch.config.blockDim.x / 32);
  for (unsigned t = 0; t < b.fibers.size(); ++t) {
    b.fibers[t].index = {t, 0, 0};
    prepare(b.fibers[t].context, stacks, t, entry);
  }
  cluster.blocks[rank] = &b;
}

void finish(Block& b, std::string& problem) {
  check_finished(b, problem);
  memset(b.fixed, kGarbage, b.fixed_bytes);
  memset(b.dynamic, kGarbage, b.dynamic_bytes);
  ++b.cluster->ended;
}

// One warp as far as it comes. Whether it came any further.
bool run(Launch& launch, Block& b, size_t warp) {
  bool any = false;
  for (bool again = true; again && !launch.failed;) {
    again = false;
    for (size_t i = 0; i < 32 && !launch.failed; ++i) {
      Fiber& f = b.fibers[warp * 32 + (backwards ? 31 - i : i)];
      if (f.ended || (f.ready && !f.ready(f.condition))) continue;
      f.ready = nullptr;
      b.current = &f;
      threadIdx = f.index;
      ++launch.steps;
      go(b.scheduler, f.context);
      b.current = nullptr;
      any = again = true;
      if (f.ended) --b.running;
    }
  }
  return any;
}

void note(Launch& launch, const std::string& text) {
  if (!launch.failed) snprintf(problem.text, sizeof problem.text, "%s", text.c_str());
  launch.failed = true;
}

// A turn of a block: until none of its threads comes any further.
void step(Launch& launch, Block& b) {
  Cluster& cluster = *b.cluster;
  block = &b;
  blockIdx = b.index;
  bool any = false;
  for (bool again = b.running > 0; again && !launch.failed;) {
    again = false;
    for (size_t w = 0; w < b.warps.size() && !launch.failed; ++w)
      again |= run(launch, b, backwards ? b.warps.size() - 1 - w : w);
    any |= again;
  }
  if (launch.failed) return;
  std::string found;
  if (any && b.running == 0) finish(b, found);
  cluster.idle = any ? 0 : cluster.idle + 1;
  const int size = static_cast<int>(launch.cluster_size);
  if (cluster.idle >= size && cluster.ended < size) {
    cluster.idle = 0;
    if (!deliver_all(cluster, found)) found = describe(cluster);
  }
  if (!found.empty()) note(launch, found);
}

// Whether a byte of a block's memory was written after it had ended.
bool touched(const Block& b) {
  const auto differs = [](uint8_t byte) { return byte != kGarbage; };
  return std::any_of(b.fixed, b.fixed + b.fixed_bytes, differs) ||
         std::any_of(b.dynamic, b.dynamic + b.dynamic_bytes, differs);
}

void take_turn(Launch& launch, size_t rank) {
  std::unique_lock<std::mutex> lock(launch.mutex);
  launch.turns.wait(lock, [&] { return launch.turn == rank; });
  launch.worker = pthread_self();
}

void pass_turn(Launch& launch, size_t rank) {
  std::lock_guard<std::mutex> lock(launch.mutex);
  launch.turn = (rank + (backwards ? launch.cluster_size - 1 : 1)) % launch.cluster_size;
  launch.turns.notify_all();
}

// A thread of the operating system runs the blocks of one rank.
void work(Launch& launch, size_t rank) {
  std::vector<uint8_t> alternate(1 << 16);  // for the handler: a fiber has little room
  stack_t signals = {};
  signals.ss_sp = alternate.data(), signals.ss_size = alternate.size();
  sigaltstack(&signals, nullptr);
  uint8_t* const stacks = take_stacks();
  // Dynamic shared memory ends at a page that can't be read.
  const size_t dynamic = (launch.config.dynamicSmemBytes + kPage - 1) / kPage * kPage;
  uint8_t* const pages = static_cast<uint8_t*>(
    mmap(nullptr, dynamic + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(pages + dynamic, kPage, PROT_NONE);
  take_turn(launch, rank);
  unsigned number = 0;
  for (Cluster& cluster : launch.clusters) {
    if (launch.failed) break;
    const dim3& grid = launch.config.gridDim;
    const unsigned first = number++ * launch.cluster_size;
    const uint3 index = {static_cast<unsigned>(first % grid.x + rank), first / grid.x % grid.y, first / grid.x / grid.y};
    Block b;
    set_up(launch, b, cluster, index, rank, stacks, pages + dynamic - (launch.config.dynamicSmemBytes + 15) / 16 * 16);
    const auto done = [&] { return launch.failed || cluster.ended == static_cast<int>(launch.cluster_size); };
    while (!done()) {
      pass_turn(launch, rank);  // at first, so that all blocks are there
      take_turn(launch, rank);
      if (!done()) step(launch, b);
    }
    if (!launch.failed && touched(b))
      note(launch, "shared memory of block " + std::to_string(index.x) + " was written after the block had ended");
  }
  block = nullptr;
  pass_turn(launch, rank);
  munmap(pages, dynamic + kPage);
  signals.ss_flags = SS_DISABLE;
  sigaltstack(&signals, nullptr);
  give_back(stacks);
  std::lock_guard<std::mutex> lock(launch.mutex);
  --launch.working;
  launch.turns.notify_all();
}

// An access to memory that isn't there, or SIGURG: the thread takes too long.
void on_signal(int signal, siginfo_t* info, void* context) {
  if (!block || !block->current) {
    if (signal == SIGURG) return;
    std::signal(signal, SIG_DFL);  // not of a kernel: happens again
    return;
  }
  if (signal == SIGURG) fail("neither ends nor waits, for more than " + std::to_string(kTimeLimit_s) + " s", kUnknown);
  problem.address = reinterpret_cast<uintptr_t>(info->si_addr);
#if defined(__x86_64__)
  problem.code = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  problem.code = static_cast<ucontext_t*>(context)->uc_mcontext.pc;
#endif
  Dl_info library;
  if (dladdr(&block, &library)) problem.code -= reinterpret_cast<uintptr_t>(library.dli_fbase);
  fail("an access to memory that belongs to no tensor", kUnknown);
}

void run(Launch& launch) {
  std::vector<std::thread> workers;
  launch.working = launch.cluster_size;
  launch.turn = backwards ? launch.cluster_size - 1 : 0;
  for (size_t rank = 0; rank < launch.cluster_size; ++rank) workers.emplace_back(work, std::ref(launch), rank);
  {
    std::unique_lock<std::mutex> lock(launch.mutex);
    const auto done = [&] { return launch.working == 0; };
    for (size_t steps = launch.steps; !launch.turns.wait_for(lock, std::chrono::seconds(kTimeLimit_s), done);) {
      if (launch.steps == steps) pthread_kill(launch.worker, SIGURG);
      steps = launch.steps;
    }
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace

void fail(const std::string& text, Where where) {
  char who[256];
  const Fiber& f = self();
  snprintf(who, sizeof who, "block (%u, %u, %u), thread %u, %s:%d: ", block->index.x, block->index.y, block->index.z,
           f.index.x, where.file, where.line);
  note(*launched, who + text);
  leave_to_scheduler();
  abort();
}

void leave_to_scheduler() { go(block->current->context, block->scheduler); }

void require_cluster(unsigned size) {
  if (launched->cluster_size == size) return;
  launched->wanted_cluster_size = size;
  note(*launched, "");
  leave_to_scheduler();
}

cudaError_t launch(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  static std::mutex one;
  std::lock_guard<std::mutex> lock(one);
  const dim3 &grid = config.gridDim, &threads = config.blockDim;
  size_t size = 1;
  for (unsigned i = 0; i < config.numAttrs; ++i)
    if (config.attrs[i].id == cudaLaunchAttributeClusterDimension) size = config.attrs[i].val.clusterDim.x;
  struct sigaction handler = {}, segv, bus, urg;
  handler.sa_sigaction = on_signal;
  handler.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigaction(SIGSEGV, &handler, &segv), sigaction(SIGBUS, &handler, &bus), sigaction(SIGURG, &handler, &urg);
  bool failed = true;
  while (true) {
    if (threads.x == 0 || threads.x % 32 || threads.x > kMaxThreads || threads.y * threads.z != 1 || size == 0 ||
        grid.x % size || grid.x * grid.y * grid.z == 0 || config.dynamicSmemBytes > kMemory) {
      snprintf(problem.text, sizeof problem.text,
               "a launch of (%u, %u, %u) blocks in clusters of %zu, of (%u, %u, %u) threads", grid.x, grid.y, grid.z, size, threads.x, threads.y, threads.z);
      break;
    }
    Launch launch{config, thread, size, size};
    Cluster cluster;
    cluster.grid = grid, cluster.threads = threads, cluster.backwards = backwards;
    cluster.blocks.resize(size);
    launch.clusters.assign(grid.x / size * grid.y * grid.z, cluster);
    launched = &launch;
    gridDim = grid, blockDim = threads;
    run(launch);
    failed = launch.failed;
    if (launch.wanted_cluster_size == size) break;
    size = launch.wanted_cluster_size;
  }
  sigaction(SIGSEGV, &segv, nullptr), sigaction(SIGBUS, &bus, nullptr), sigaction(SIGURG, &urg, nullptr);
  launched = nullptr;
  return failed ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace emulator

// Before each launch.
extern "C" void emulator_prepare(int order) {
  emulator::backwards = order;
  emulator::problem = {};
}
extern "C" const char* emulator_problem() { return emulator::problem.text; }
extern "C" uintptr_t emulator_fault(int code) { return code ? emulator::problem.code : emulator::problem.address; }
