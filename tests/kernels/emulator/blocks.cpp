// What the threads of a block and of a cluster have in common: collectives, barriers, shared memory and its messages.
#include <algorithm>
#include <cstring>
#include <map>

#include "threads.h"

namespace emulator {

namespace {

constexpr uint32_t kDynamic = 0x400000;  // where addresses of extern __shared__ begin

std::string at(Where where) { return std::string(where.file) + ":" + std::to_string(where.line); }

// An mbarrier, in its 64 bits.
struct Barrier {
  static constexpr unsigned kThere = 0x2ac;
  int32_t bytes;            // that are still to come in this phase
  uint32_t phase : 1;       // its parity
  uint32_t pending : 7;     // arrivals that are still to come
  uint32_t count : 7;       // of each phase
  uint32_t born : 7;        // at how many cluster barriers its thread had arrived before
  uint32_t there : 10;      // kThere
  void end_of_phase() {
    if (pending == 0 && bytes == 0) phase ^= 1, pending = count;
  }
};
static_assert(sizeof(Barrier) == 8, "in place of 64 bits");

Barrier& barrier_at(uint32_t address, Where where) {
  uint8_t* memory = shared_memory(address, sizeof(Barrier), where);
  if (reinterpret_cast<uintptr_t>(memory) % 8) fail("an mbarrier that is not aligned to 8 bytes", where);
  return *reinterpret_cast<Barrier*>(memory);
}
Barrier& initialised(uint32_t address, Where where) {
  Barrier& barrier = barrier_at(address, where);
  if (barrier.there != Barrier::kThere) fail("an mbarrier that isn't there yet, or was written over", where);
  return barrier;
}

int rank_of(uint32_t address) { return address >> 24 ? (address >> 24) - 1 : block->rank; }

// Null if all is well.
const char* deliver(const Cluster& cluster, const Message& message) {
  const Block& target = *cluster.blocks[rank_of(message.to)];
  if (target.running == 0) return "a message to a block that has ended";
  const auto memory = [&](uint32_t address) {
    const uint32_t offset = address & 0xffffff;
    return offset < kDynamic ? target.fixed + offset : target.dynamic + (offset - kDynamic);
  };
  Barrier& barrier = *reinterpret_cast<Barrier*>(memory(message.barrier));
  if (barrier.there != Barrier::kThere) return "a message for an mbarrier that was written over";
  if (barrier.bytes < static_cast<int>(message.bytes.size())) return "more bytes than the mbarrier expects";
  memcpy(memory(message.to), message.bytes.data(), message.bytes.size());
  barrier.bytes -= message.bytes.size();
  barrier.end_of_phase();
  return nullptr;
}

}  // namespace

const uint64_t* exchange(uint64_t value, const char* what, Where where) {
  Fiber& f = self();
  Warp& warp = block->warps[f.index.x / 32];
  const int which = f.collectives++ % 2;
  if (warp.arrived[which] == 32) warp.arrived[which] = 0;  // of the one before the last
  if (warp.arrived[which] == 0) warp.where[which] = where;
  if (where.line != warp.where[which].line || strcmp(where.file, warp.where[which].file) != 0)
    fail(std::string("lanes of a warp are at different collectives, here and at ") + at(warp.where[which]), where);
  warp.given[which][f.index.x % 32] = value;
  ++warp.arrived[which];
  wait([&] { return warp.arrived[which] == 32; }, what, where);
  return warp.given[which];
}

bool sync_block(bool yes, Where where) {
  Block& b = *block;
  if (b.synced == 0) b.sync_where = where;
  if (where.line != b.sync_where.line || strcmp(where.file, b.sync_where.file) != 0)
    fail("threads of a block are at different barriers, here and at " + at(b.sync_where), where);
  b.yes += yes;
  const unsigned mine = b.syncs;
  if (++b.synced == static_cast<int>(b.fibers.size())) {
    b.any = b.yes > 0;
    b.synced = b.yes = 0;
    ++b.syncs;
  }
  wait([&] { return b.syncs != mine; }, "__syncthreads", where);
  return b.any;
}

void cluster_arrive(Where where) {
  exchange(0, "barrier.cluster.arrive", where);  // .aligned: all lanes of the warp
  Cluster& cluster = *block->cluster;
  if (self().cluster_arrivals != self().cluster_waits) fail("arrives twice at the barrier of the cluster", where);
  ++self().cluster_arrivals;
  if (++cluster.arrived == cluster.threads.x * cluster.blocks.size()) cluster.arrived = 0, ++cluster.phase;
}

void cluster_wait(Where where) {
  exchange(0, "barrier.cluster.wait", where);
  if (self().cluster_arrivals == self().cluster_waits) fail("waits for the cluster without having arrived", where);
  const Cluster& cluster = *block->cluster;
  wait([&, mine = self().cluster_arrivals] { return cluster.phase >= mine; }, "barrier.cluster.wait", where);
  ++self().cluster_waits;
}

void* dynamic_shared_memory() { return block->dynamic; }

uint32_t shared_address(const void* pointer, Where where) {
  const auto* at = static_cast<const uint8_t*>(pointer);
  if (at >= block->fixed && at < block->fixed + block->fixed_bytes) return at - block->fixed;
  if (at >= block->dynamic && at <= block->dynamic + block->dynamic_bytes) return kDynamic + (at - block->dynamic);
  fail("a pointer that isn't into the block's shared memory", where);
}

uint8_t* shared_memory(uint32_t address, size_t bytes, Where where) {
  const size_t rank = rank_of(address), offset = address & 0xffffff;
  if (rank >= block->cluster->blocks.size()) fail("an address in a block that isn't in the cluster", where);
  const Block& target = *block->cluster->blocks[rank];
  const bool fixed = offset < kDynamic;
  if (offset + bytes > (fixed ? target.fixed_bytes : kDynamic + target.dynamic_bytes))
    fail("an address behind the end of shared memory", where);
  return fixed ? target.fixed + offset : target.dynamic + (offset - kDynamic);
}

void* in_block(void* pointer, unsigned rank, Where where) {
  const uint32_t address = shared_address(pointer, where);
  if (rank != static_cast<unsigned>(block->rank) && self().cluster_waits == 0)
    fail("a pointer into another block before a barrier of the cluster", where);
  return shared_memory((address & 0xffffff) | (rank + 1) << 24, 1, where);
}

void init_barrier(uint32_t address, unsigned count, Where where) {
  Barrier& barrier = barrier_at(address, where);
  barrier = {0, 0, count, count, self().cluster_arrivals, Barrier::kThere};
  block->barriers.push_back(address);
}

void expect_bytes(uint32_t address, uint32_t bytes, Where where) {
  Barrier& barrier = initialised(address, where);
  if (barrier.pending == 0) fail("more arrivals than the mbarrier expects", where);
  --barrier.pending;
  barrier.bytes += bytes;
  barrier.end_of_phase();
}

void wait_for_barrier(uint32_t address, uint32_t parity, Where where) {
  const Barrier& barrier = initialised(address, where);
  wait([&] { return barrier.phase != parity; }, "an mbarrier", where);
}

void send(uint32_t to, uint32_t address, const void* from, size_t bytes, Where where) {
  uint8_t* target = shared_memory(to, bytes, where);
  if (reinterpret_cast<uintptr_t>(target) % std::min<size_t>(bytes, 16)) fail("a message to where it isn't aligned", where);
  const int rank = rank_of(to);
  if (rank != rank_of(address)) fail("a message whose mbarrier is in another block", where);
  const bool own = rank == block->rank;
  if (!own && self().cluster_waits == 0) fail("a message to a block that may not run yet", where);
  if (block->cluster->blocks[rank]->running == 0) fail("a message to a block that has ended", where);
  const Barrier& barrier = initialised(address, where);
  if (!own && self().cluster_waits <= barrier.born) fail("a message for an mbarrier that may not be there yet", where);
  const uint32_t in_target = (rank + 1) << 24;
  Message message{(to & 0xffffff) | in_target, (address & 0xffffff) | in_target,
                  std::string(static_cast<const char*>(from), bytes), where};
  // At once, or as late as can be: what doesn't wait for it then reads garbage.
  if (!block->cluster->backwards) {
    block->cluster->messages.push_back(std::move(message));
  } else if (const char* problem = deliver(*block->cluster, message)) {
    fail(problem, where);
  }
}

bool deliver_all(Cluster& cluster, std::string& problem) {
  const bool any = !cluster.messages.empty();
  for (const Message& message : cluster.messages)
    if (const char* found = deliver(cluster, message)) problem = at(message.sent) + ": " + found;
  cluster.messages.clear();
  return any;
}

void check_finished(const Block& ended, std::string& problem) {
  for (uint32_t address : ended.barriers) {
    const uint8_t* memory = address < kDynamic ? ended.fixed + address : ended.dynamic + (address - kDynamic);
    const Barrier& barrier = *reinterpret_cast<const Barrier*>(memory);
    if (barrier.there == Barrier::kThere && barrier.bytes != 0)
      problem = "block " + std::to_string(ended.index.x) + " has ended, and its mbarrier still expects " +
                std::to_string(barrier.bytes) + " bytes";
  }
}

std::string describe(const Cluster& cluster) {
  std::string text = "deadlock:";
  for (const Block* b : cluster.blocks) {
    std::map<std::string, std::pair<unsigned, int>> places;  // the first thread there, and how many
    for (const Fiber& f : b->fibers) {
      const std::string place =
        f.ended ? "ended" : std::string("at ") + f.what + ", " + f.where.file + ":" + std::to_string(f.where.line);
      ++places.insert({place, {f.index.x, 0}}).first->second.second;
    }
    for (const auto& [place, threads] : places)
      text += "\n  block " + std::to_string(b->index.x) + ": " + std::to_string(threads.second) + " threads from " +
              std::to_string(threads.first) + " on: " + place;
  }
  return text;
}

}  // namespace emulator
