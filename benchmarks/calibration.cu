// Idle time of known length and cause, planted on the device: what `python -m benchmarks.calibrate` tests the
// gap analysis with. `make calibrate` compiles, records and compares.
//
//   nvcc -arch=native -O2 -o calibration benchmarks/calibration.cu
//   nsys profile --trace=cuda,nvtx --cuda-graph-trace=node ... ./calibration TRUTH.csv
//
// A section is an NVTX range (domain "calibration") around its repetitions. In a repetition the range named
// after the planted cause, with the repetition's number as payload, holds just the calls that launch the work
// which ends the planted gaps. TRUTH.csv has one row per gap: section, cause, repetition, work (which work of
// those launched in that range ends the gap, in the order in which they start, from 0) and planted_ns.
//
// The truth is this program's own: CLOCK_MONOTONIC on the host, %globaltimer inside the kernels, and the two
// related before and after each section. A kernel reads the clock after its beginning and before its end: a
// gap measured between two kernels is longer than the profiler's by their edges, about a microsecond.
//
// One section runs in a second process, started before this one touches the device.
#include "calibration.cuh"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

// ---- The sections -----------------------------------------------------------------------------------------

// The gaps between kernels that ran one after the other; `work` ends the first of them.
std::vector<Gap> gaps_between(const std::vector<Stamp>& stamps, int work) {
  std::vector<Gap> gaps;
  for (std::size_t slot = 1; slot < stamps.size(); ++slot) {
    gaps.push_back({work++, end_of(stamps[slot - 1]), start_of(stamps[slot])});
  }
  return gaps;
}

// A kernel ends, the host sees it, and then does `between`: the device is idle until the launch that follows.
std::vector<Gap> after_idle(const Bench& bench, const char* cause, int repetition,
                            const std::function<void()>& between) {
  launch(bench, kShort, 0, bench.stream);
  CHECK(cudaStreamSynchronize(bench.stream));
  const Moment from = now_on_host();
  between();
  const Moment to = now_on_host();
  {
    const Range range(bench, cause, repetition);
    launch(bench, kShort, 1, bench.stream);
  }
  CHECK(cudaDeviceSynchronize());
  return {{0, from, to}};
}

// The host waits in `synchronise` for a callback that follows a kernel: idle time inside that call.
std::vector<Gap> in_sync(const Bench& bench, int repetition, const std::function<void()>& synchronise) {
  Ns callback_ns = kLong;
  launch(bench, kLong, 0, bench.stream);
  CHECK(cudaLaunchHostFunc(bench.stream, busy_wait_callback, &callback_ns));
  synchronise();
  const Moment returned = now_on_host();
  {
    const Range range(bench, "sync", repetition);
    launch(bench, kShort, 1, bench.stream);
  }
  return {{0, end_of(finish(bench, 2)[0]), returned}};
}

// A launch that takes long, from the call to the start of its first kernel (which stamps slot 0).
std::vector<Gap> in_launch(const Bench& bench, int repetition, const std::function<void()>& launch_slowly) {
  launch(bench, kShort, 1, bench.stream);
  CHECK(cudaStreamSynchronize(bench.stream));
  Moment called;
  {
    const Range range(bench, "launch", repetition);
    called = now_on_host();
    launch_slowly();
  }
  return {{0, called, start_of(finish(bench, 1)[0])}};
}

// A kernel waits in its stream for an event of the other, `callback_ns` after that one's kernel.
std::vector<Gap> dependency(const Bench& bench, int repetition, Ns callback_ns) {
  launch_gated(bench, 0);
  if (callback_ns > 0) CHECK(cudaLaunchHostFunc(bench.stream, busy_wait_callback, &callback_ns));
  CHECK(cudaEventRecord(bench.event, bench.stream));
  CHECK(cudaStreamWaitEvent(bench.other, bench.event, 0));
  {
    const Range range(bench, "dependency", repetition);
    launch(bench, kShort, 1, bench.other);
  }
  open_gate(bench);
  return gaps_between(finish(bench, 2), 0);
}

// Kernels queued behind one that runs: short gaps, back to back.
std::vector<Gap> dispatch(const Bench& bench, int repetition) {
  launch_gated(bench, 0);
  {
    const Range range(bench, "dispatch", repetition);
    for (int slot = 1; slot <= kChain; ++slot) launch(bench, kShort, slot, bench.stream);
  }
  open_gate(bench);
  return gaps_between(finish(bench, kChain + 1), 0);
}

// The gaps between the kernels of one graph, each of which stamps the slot of its place in the chain.
std::vector<Gap> in_graph(const Bench& bench, int repetition, cudaGraphExec_t graph, int kernels) {
  {
    const Range range(bench, "graph", repetition);
    CHECK(cudaGraphLaunch(graph, bench.stream));
  }
  return gaps_between(finish(bench, kernels), 1);
}

void plant_host(const Bench& bench, const std::string& section, Ns pause_ns) {
  plant(bench, section, "host", kRepetitions, [&](int repetition) {
    return after_idle(bench, "host", repetition, [&] { busy_wait(pause_ns); });
  });
}

void plant_sync(const Bench& bench) {
  plant(bench, "sync_stream", "sync", kRepetitions, [&](int repetition) {
    return in_sync(bench, repetition, [&] { CHECK(cudaStreamSynchronize(bench.stream)); });
  });
  plant(bench, "sync_event", "sync", kRepetitions, [&](int repetition) {
    return in_sync(bench, repetition, [&] {
      CHECK(cudaEventRecord(bench.blocking_event, bench.stream));
      CHECK(cudaEventSynchronize(bench.blocking_event));
    });
  });
}

void plant_api(const Bench& bench, cudaGraph_t graph) {
  plant(bench, "api_malloc", "api", kRepetitions, [&](int repetition) {
    void* block = nullptr;
    auto gaps = after_idle(bench, "api", repetition, [&] { CHECK(cudaMalloc(&block, kBlock)); });
    CHECK(cudaFree(block));
    return gaps;
  });
  plant(bench, "api_instantiate", "api", kRepetitions, [&](int repetition) {
    cudaGraphExec_t executable;
    auto gaps = after_idle(bench, "api", repetition, [&] { executable = instantiate(graph); });
    CHECK(cudaGraphExecDestroy(executable));
    return gaps;
  });
}

void plant_launch(const Bench& bench, cudaGraph_t graph) {
  plant(bench, "launch_graph", "launch", kFew, [&](int repetition) {
    cudaGraphExec_t executable = instantiate(graph);  // not yet uploaded: the launch will do that
    auto gaps = in_launch(bench, repetition, [&] { CHECK(cudaGraphLaunch(executable, bench.stream)); });
    CHECK(cudaGraphExecDestroy(executable));
    return gaps;
  });
}

void plant_graph(const Bench& bench) {
  Ns callback_ns = kLong;
  const cudaGraphExec_t chain = instantiate(chain_graph(bench, kChain + 1, kShort));
  const cudaGraphExec_t callback = instantiate(capture(bench, [&] {
    launch(bench, kShort, 0, bench.stream);
    CHECK(cudaLaunchHostFunc(bench.stream, busy_wait_callback, &callback_ns));
    launch(bench, kShort, 1, bench.stream);
  }));
  plant(bench, "graph_chain", "graph", kFew,
        [&](int repetition) { return in_graph(bench, repetition, chain, kChain + 1); });
  plant(bench, "graph_callback", "graph", kRepetitions,
        [&](int repetition) { return in_graph(bench, repetition, callback, 2); });
}

void plant_all(const Bench& bench) {
  const cudaGraph_t large = chain_graph(bench, kLargeGraph, 2 * kMicrosecond);
  for (const int pause_us : {20, 100, 500}) {
    plant_host(bench, "host_" + std::to_string(pause_us) + "us", pause_us * kMicrosecond);
  }
  plant_sync(bench);
  plant_api(bench, large);
  plant_launch(bench, large);
  plant(bench, "dependency_callback", "dependency", kRepetitions,
        [&](int repetition) { return dependency(bench, repetition, kLong); });
  plant(bench, "dependency_event", "dependency", kRepetitions,
        [&](int repetition) { return dependency(bench, repetition, 0); });
  plant(bench, "dispatch", "dispatch", kFew, [&](int repetition) { return dispatch(bench, repetition); });
  plant_graph(bench);
}

// ---- Two processes ----------------------------------------------------------------------------------------

void start_truth(const char* path) {
  std::FILE* file = std::fopen(path, "w");
  if (!file || std::fputs("section,cause,repetition,work,planted_ns\n", file) < 0 || std::fclose(file) != 0) {
    fail(path, "can't be written");
  }
}

// This program again, in a process of its own, to its end.
void run_child(const char* program, const char* truth) {
  const pid_t child = fork();
  if (child < 0) fail("fork", std::strerror(errno));
  if (child == 0) {
    execl("/proc/self/exe", program, truth, "child", static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) fail("the second process", "failed");
}

int main(int argc, char** argv) {
  const bool is_child = argc == 3 && std::strcmp(argv[2], "child") == 0;
  if (argc != 2 && !is_child) {
    std::fprintf(stderr, "usage: %s TRUTH.csv\n", argv[0]);
    return 2;
  }
  setenv("CUDA_MODULE_LOADING", "LAZY", 1);
  if (!is_child) {
    start_truth(argv[1]);
    run_child(argv[0], argv[1]);
  }
  const Bench bench = set_up(argv[1]);
  if (is_child) {
    plant_host(bench, "host_second_process", 100 * kMicrosecond);
  } else {
    plant_all(bench);
  }
  CHECK(cudaDeviceSynchronize());
  return std::fclose(bench.truth) == 0 ? 0 : 1;
}
