// Which drafted tokens stand: one warp a row, one block. What it does is said in accept.py.
#include <cstdint>

#include "device.cuh"
#include "launch.cuh"

namespace {

constexpr int MAX_WARPS = 32;

struct State {
  int64_t* history;         // [rows, length]
  int64_t* position;        // [rows]
  const int64_t* chosen;    // [rows, queries]
  const float* logprobs;    // [rows, queries]
  const int64_t* limit;     // [rows]
  int32_t* running;         // [rows]
  int32_t* any_running;     // [1]
  int64_t* rounds;          // [rows]
  float* score;             // [rows]
  int64_t end;
  int rows, length, queries;  // queries <= 32: a lane has one
};

// How many lanes in a row, from the first on, say yes.
__device__ int leading(bool yes) {
  const unsigned no = __ballot_sync(device::kAllLanes, !yes);
  return no == 0 ? 32 : __ffs(no) - 1;
}

// One row; whether it still runs. All lanes of a warp call it.
__device__ bool accept_row(const State& s, int row) {
  const int lane = threadIdx.x % 32;
  const bool real = lane < s.queries;
  const int64_t position = s.position[row], place = position + 1 + lane, limit = s.limit[row];
  int64_t* history = s.history + static_cast<int64_t>(row) * s.length;
  const int64_t token = real ? s.chosen[row * s.queries + lane] : 0;
  const float logprob = real ? s.logprobs[row * s.queries + lane] : 0.0f;
  const bool drafted = lane < s.queries - 1 && place < s.length;
  const bool confirmed = drafted && history[place] == token;
  if (s.running[row] == 0) return false;

  const int first_end = leading(!(real && token == s.end));
  const int64_t wanted = min(leading(confirmed), first_end) + 1;
  const int64_t taken = max(min(wanted, limit - position), static_cast<int64_t>(0));
  const float score = device::sum_over_lanes<32>(lane < taken ? logprob : 0.0f);
  const bool runs = first_end >= taken && position + taken < limit;
  if (lane < taken) history[place] = token;
  if (lane == 0) {
    s.position[row] = position + taken;
    s.rounds[row] += 1;
    s.score[row] += score;
    s.running[row] = runs;
  }
  return runs;
}

__global__ void accept_kernel(const __grid_constant__ State s) {
  device::let_next_kernel_begin();
  device::wait_for_previous_kernel();
  bool any = false;
  for (int row = threadIdx.x / 32; row < s.rows; row += blockDim.x / 32) any |= accept_row(s, row);
  any = __syncthreads_or(any);
  if (threadIdx.x == 0) *s.any_running = any;
}

}  // namespace

// Returns a cudaError_t.
extern "C" int accept_drafts(const void* state, int pdl, void* stream) {
  const State& s = *static_cast<const State*>(state);
  return launch(accept_kernel, dim3(1), dim3(32 * (s.rows < MAX_WARPS ? s.rows : MAX_WARPS)), stream, pdl, s);
}
