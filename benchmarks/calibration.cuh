// What the sections of calibration.cu are made of: kernels of known length, two clocks related to each other,
// NVTX ranges, and the way of a planted gap into the truth.
#pragma once

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#define CHECK(call) check((call), #call, __FILE__, __LINE__)

using Ns = std::int64_t;

constexpr Ns kMicrosecond = 1'000;
constexpr Ns kPatience = 2'000'000 * kMicrosecond;  // of whoever waits for the other side
constexpr Ns kShort = 20 * kMicrosecond;
constexpr Ns kLong = 200 * kMicrosecond;  // enough for the host to make a few traced calls meanwhile
constexpr int kRepetitions = 50;
constexpr int kFew = 20;          // repetitions of sections with many kernels
constexpr int kLargeGraph = 300;  // kernels
constexpr int kChain = 20;        // gaps in a row
constexpr std::size_t kBlock = std::size_t{1} << 30;  // bytes: cudaMalloc takes its time for that much

[[noreturn]] inline void fail(const char* what, const char* why) {
  std::fprintf(stderr, "calibration: %s: %s\n", what, why);
  std::exit(1);
}

inline void check(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, call, cudaGetErrorString(error));
  std::exit(1);
}

// ---- On the device ----------------------------------------------------------------------------------------

struct Stamp {
  Ns start, end;  // %globaltimer
};

struct Shared {  // in pinned host memory, for both sides to see while a kernel runs
  volatile int gate;
  volatile int asked;
  volatile Ns answered_ns;
};

__device__ Ns globaltimer() {
  Ns now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
  return now;
}

__device__ void wait_for(const volatile int& flag, int value) {
  const Ns since = globaltimer();
  while (flag != value) {
    if (globaltimer() - since > kPatience) __trap();
  }
}

// Wait for the gate, if there is one, and then work for dur_ns.
__global__ void spin(Ns dur_ns, Stamp* stamp, const Shared* gated_by) {
  const Ns start = globaltimer();
  if (gated_by) wait_for(gated_by->gate, 1);
  const Ns from = globaltimer();
  Ns now = from;
  while (now - from < dur_ns) now = globaltimer();
  *stamp = {start, now};
}

// Tell the device's time as often as the host asks.
__global__ void tell_time(Shared* shared, int rounds) {
  for (int round = 1; round <= rounds; ++round) {
    wait_for(shared->asked, round);
    shared->answered_ns = globaltimer();
  }
}

// ---- Clocks -----------------------------------------------------------------------------------------------

inline Ns host_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * Ns{1'000'000'000} + now.tv_nsec;
}

inline void busy_wait(Ns dur_ns) {
  const Ns from = host_ns();
  while (host_ns() - from < dur_ns) {
  }
}

inline void CUDART_CB busy_wait_callback(void* dur_ns) { busy_wait(*static_cast<const Ns*>(dur_ns)); }

// How far the device's clock is ahead of the host's at a moment of the host's, and how long it took to ask.
struct Relation {
  Ns at_ns, offset_ns, round_trip_ns;
};

struct Moment {
  Ns ns;
  bool on_device;

  // On the host's clock, whose relation to the device's drifts evenly from one measurement to the other.
  double on_host(const Relation& before, const Relation& after) const {
    if (!on_device) return static_cast<double>(ns);
    const Ns about_ns = ns - before.offset_ns;
    const double share = static_cast<double>(about_ns - before.at_ns) / (after.at_ns - before.at_ns);
    return about_ns - share * (after.offset_ns - before.offset_ns);
  }
};

inline Moment now_on_host() { return {host_ns(), false}; }
inline Moment start_of(const Stamp& stamp) { return {stamp.start, true}; }
inline Moment end_of(const Stamp& stamp) { return {stamp.end, true}; }

// ---- The bench: what all sections use ---------------------------------------------------------------------


struct Bench {
  cudaStream_t stream, other;
  cudaEvent_t event, blocking_event;
  Shared* shared;
  Stamp* stamps;  // on the device
  nvtxDomainHandle_t domain;
  std::FILE* truth;
};

struct Gap {
  int work;
  Moment from, to;
};

class Range {
 public:
  Range(const Bench& bench, const char* name, int number = -1) : domain_(bench.domain) {
    nvtxEventAttributes_t attributes = {};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = name;
    if (number >= 0) {
      attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
      attributes.payload.llValue = number;
    }
    nvtxDomainRangePushEx(domain_, &attributes);
  }
  ~Range() { nvtxDomainRangePop(domain_); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  nvtxDomainHandle_t domain_;
};

inline void launch(const Bench& bench, Ns dur_ns, int slot, cudaStream_t stream, bool gated = false) {
  Stamp* stamp = bench.stamps + slot;
  const Shared* gated_by = gated ? bench.shared : nullptr;
  void* arguments[] = {&dur_ns, &stamp, &gated_by};
  CHECK(cudaLaunchKernel(reinterpret_cast<const void*>(spin), dim3(1), dim3(1), arguments, 0, stream));
}

// The next gated kernel waits until open_gate: whatever is launched meanwhile is launched in time.
inline void launch_gated(const Bench& bench, int slot) {
  bench.shared->gate = 0;
  launch(bench, kShort, slot, bench.stream, true);
}

inline void open_gate(const Bench& bench) { bench.shared->gate = 1; }

inline std::vector<Stamp> finish(const Bench& bench, int slots) {
  CHECK(cudaDeviceSynchronize());
  std::vector<Stamp> stamps(slots);
  CHECK(cudaMemcpy(stamps.data(), bench.stamps, slots * sizeof(Stamp), cudaMemcpyDeviceToHost));
  return stamps;
}

inline cudaGraph_t capture(const Bench& bench, const std::function<void()>& body) {
  cudaGraph_t graph;
  CHECK(cudaStreamBeginCapture(bench.stream, cudaStreamCaptureModeGlobal));
  body();
  CHECK(cudaStreamEndCapture(bench.stream, &graph));
  return graph;
}

inline cudaGraph_t chain_graph(const Bench& bench, int kernels, Ns dur_ns) {
  return capture(bench, [&] {
    for (int slot = 0; slot < kernels; ++slot) launch(bench, dur_ns, slot, bench.stream);
  });
}

inline cudaGraphExec_t instantiate(cudaGraph_t graph) {
  cudaGraphExec_t executable;
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  return executable;
}

// The quickest of many questions: whenever the device answered, it was within that one's round trip.
inline Relation relate_clocks(const Bench& bench) {
  constexpr int rounds = 200;
  Shared& shared = *bench.shared;
  shared.asked = 0;
  tell_time<<<1, 1, 0, bench.stream>>>(bench.shared, rounds);
  CHECK(cudaGetLastError());
  Relation best = {0, 0, kPatience};
  for (int round = 1; round <= rounds; ++round) {
    shared.answered_ns = 0;
    const Ns from = host_ns();
    shared.asked = round;
    while (shared.answered_ns == 0) {
      if (host_ns() - from > kPatience) fail("relating the clocks", "the device does not answer");
    }
    const Ns to = host_ns(), middle = from + (to - from) / 2;
    if (to - from < best.round_trip_ns) best = {middle, shared.answered_ns - middle, to - from};
  }
  CHECK(cudaStreamSynchronize(bench.stream));
  return best;
}

inline Bench set_up(const char* truth) {
  Bench bench = {};
  CHECK(cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking));
  CHECK(cudaStreamCreateWithFlags(&bench.other, cudaStreamNonBlocking));
  CHECK(cudaEventCreateWithFlags(&bench.event, cudaEventDisableTiming));
  CHECK(cudaEventCreateWithFlags(&bench.blocking_event, cudaEventDisableTiming | cudaEventBlockingSync));
  CHECK(cudaHostAlloc(&bench.shared, sizeof(Shared), cudaHostAllocMapped));
  CHECK(cudaMalloc(&bench.stamps, kLargeGraph * sizeof(Stamp)));
  bench.domain = nvtxDomainCreateA("calibration");
  bench.truth = std::fopen(truth, "a");
  if (!bench.truth) fail(truth, "can't be written");
  return bench;
}

// One section: a repetition outside it to warm up, then those that count, and a pause after each.
inline void plant(const Bench& bench, const std::string& section, const char* cause, int repetitions,
                  const std::function<std::vector<Gap>(int)>& body) {
  const auto settle = [] {
    CHECK(cudaDeviceSynchronize());
    busy_wait(kLong);
  };
  body(0);
  settle();
  const Relation before = relate_clocks(bench);
  settle();
  std::vector<std::vector<Gap>> planted;
  {
    const Range range(bench, section.c_str());
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      planted.push_back(body(repetition));
      settle();
    }
  }
  const Relation after = relate_clocks(bench);
  settle();
  std::printf("%-20s %3d repetitions, clocks related to within %ld ns\n", section.c_str(), repetitions,
              static_cast<long>(std::max(before.round_trip_ns, after.round_trip_ns) / 2));
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    for (const Gap& gap : planted[repetition]) {
      const double planted_ns = gap.to.on_host(before, after) - gap.from.on_host(before, after);
      if (planted_ns < 0) fail(section.c_str(), "a planted gap has a negative length");
      std::fprintf(bench.truth, "%s,%s,%d,%d,%.0f\n", section.c_str(), cause, repetition, gap.work,
                   planted_ns);
    }
  }
  if (std::fflush(bench.truth) != 0) fail("the truth", "can't be written");
}
