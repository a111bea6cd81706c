// The k best next tokens of each row of logits, under Whisper's rules, and their log-probabilities, in one
// launch.
//
// A row belongs to one cluster of CLUSTER blocks, which reads it once. Every warp makes a list of the k best of
// its tokens and sends it into the shared memory of the first block, whose first warp merges all lists. Warps
// meet nowhere else, and there is no workspace: nothing in a captured graph can point to memory that was given to
// someone else.
//
// With timestamps a warp has either text or timestamps: the two are kept apart up to the end, since only then it
// is known whether the sum of the timestamps' probabilities forbids all text. The result is the same in every
// run: no atomics, fixed order of all sums.
#include <cfloat>
#include <climits>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device.cuh"
#include "launch.cuh"
#include "fused_topk/logit_rows.cuh"
#include "fused_topk/token_lists.cuh"

namespace {

constexpr int CLUSTER = 8;  // the largest that every GPU with clusters has
constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;
constexpr int LISTS = CLUSTER * WARPS;  // two for each lane of the warp that merges them
constexpr int MAX_K = 8;
static_assert(LISTS == 64 && 32 % WARPS == 0, "the two lists of a lane are of the same kind");

// A warp's list in the first block, sent in messages of 16 bytes.
struct alignas(16) Message {
  Candidate half[2];
};
union Part {
  Message messages[MAX_K / 2 + 1];
  Candidate halves[MAX_K + 2];  // the sum of exp(logit - best logit) in place of a logit, then the tokens
};

// The list of this warp to its part in the first block.
__device__ void send(const List& list, int k, Part& part, const device::Mbarrier& all_sent) {
  const int lane = threadIdx.x % 32;
  Candidate first{list.sum, 0}, second = list.own;
  if (k > 1) {  // lane m sends the sum or rank 2m - 1, and rank 2m
    const Candidate odd{__shfl_sync(device::kAllLanes, list.own.logit, 2 * lane - 1),
                        __shfl_sync(device::kAllLanes, list.own.id, 2 * lane - 1)};
    second = {__shfl_sync(device::kAllLanes, list.own.logit, 2 * lane),
              __shfl_sync(device::kAllLanes, list.own.id, 2 * lane)};
    if (lane > 0) first = odd;
  }
  const float4 message{first.logit, __int_as_float(first.id), second.logit, __int_as_float(second.id)};
  if (lane <= k / 2) device::send(reinterpret_cast<float4*>(&part.messages[lane]), 0, message, all_sent);
}

// One warp: all lists to the result. A list is sorted, so that its head alone may be the next best.
__device__ void merge(const Problem& p, int query, int k, int64_t forced, const Part* parts) {
  const int lane = threadIdx.x % 32;
  const bool stamps = p.timestamp_begin >= 0, text = !stamps || lane % WARPS < WARPS - 1;
  const Candidate *next = parts[lane].halves, *other_next = parts[lane + 32].halves;
  const float own_sum = next->logit, other_sum = other_next->logit;
  Candidate own = *++next, other = *++other_next;  // the best that are left of the lane's two lists

  const float best = fmaxf(own.logit, other.logit);
  const float top_text = max_of_warp(text ? best : -INFINITY);
  const float top_stamp = stamps ? max_of_warp(text ? -INFINITY : best) : -INFINITY;
  const float top_kind = fmaxf(text ? top_text : top_stamp, -FLT_MAX);
  const float sum = own_sum * relative(own.logit, top_kind) + other_sum * relative(other.logit, top_kind);
  const float text_sum = device::sum_over_lanes<32>(text ? sum : 0.0f);
  float top = fmaxf(top_text, top_stamp), logsumexp, all = text_sum;
  bool only_stamps = false;
  if (stamps) {
    const float stamp_sum = device::sum_over_lanes<32>(text ? 0.0f : sum);
    logsumexp = top_stamp + logf(stamp_sum);  // -inf - inf without any
    only_stamps = logsumexp > top_text;
    const float least = fmaxf(top, -FLT_MAX);
    all = text_sum * relative(top_text, least) + stamp_sum * relative(top_stamp, least);
  }
  if (only_stamps) {
    top = top_stamp;
    if (text) own.logit = other.logit = -INFINITY;
  } else {
    logsumexp = top + logf(all);  // -inf - inf where nothing is left
  }

  Candidate chosen{-INFINITY, NO_TOKEN};  // in lane r the one of rank r
  for (int rank = 0;;) {
    const bool from_other = other.logit > own.logit || (other.logit == own.logit && other.id < own.id);
    const Candidate mine = from_other ? other : own;
    const unsigned wanted = mine.logit == top ? static_cast<unsigned>(mine.id) : UINT_MAX;
    const int id = static_cast<int>(__reduce_min_sync(device::kAllLanes, wanted));
    if (lane == rank) chosen = {top, id};
    if (++rank == k || top == -INFINITY) break;
    if (mine.id == id) {
      if (from_other) other = *++other_next;
      if (!from_other) own = *++next;
    }
    top = max_of_warp(fmaxf(own.logit, other.logit));
  }

  if (forced >= 0) {
    chosen = {lane == 0 ? 0.0f : -INFINITY, static_cast<int>(forced)};
    logsumexp = 0.0f;
  }
  if (lane == 0) p.logsumexp[query] = logsumexp;
  if (lane >= k) return;
  const bool any = chosen.logit > -INFINITY;
  p.ids[query * k + lane] = any ? chosen.id : p.end;
  p.logprobs[query * k + lane] = any ? chosen.logit - logsumexp : -INFINITY;
}

// ONE: k is 1.
template <typename T, bool ONE>
__global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
  fused_topk_kernel(const __grid_constant__ Problem p) {
  constexpr int EACH = Span<T>::EACH, COUNT = Span<T>::COUNT;
  __shared__ device::Mbarrier all_sent;  // used in the first block alone, like parts
  __shared__ Part parts[LISTS];
  const int rank = blockIdx.x, query = blockIdx.z * p.queries + blockIdx.y, k = ONE ? 1 : p.k;
  const int warp = __shfl_sync(device::kAllLanes, threadIdx.x / 32, 0);  // so that the compiler knows it is one
  if (rank == 0 && threadIdx.x == 0) {
    all_sent.init();
    all_sent.expect(LISTS * (k / 2 + 1) * sizeof(Message));
  }
  __syncwarp();
  device::cluster_arrive();  // awaited before anything is sent: the first block has to run by then
  device::let_next_kernel_begin();
  device::wait_for_previous_kernel();

  Rules rules;
  rules.load(p, blockIdx.z, query);
  const bool stamps = p.timestamp_begin >= 0;
  const int kind = stamps && warp == WARPS - 1 ? TIMESTAMP : TEXT;
  if (kind == TIMESTAMP) rules.load_history(p);
  // Of tiles one after another each is for another block, so that all have as many.
  const int step = CLUSTER * (kind == TIMESTAMP ? 1 : stamps ? WARPS - 1 : WARPS);
  const int own = rank + CLUSTER * (kind == TIMESTAMP ? 0 : warp);
  const Span<T> span(p, query, kind);
  Tile<T> tile;
  tile.load(p, span, own);
  rules.arrived();  // from here on, while the logits are on their way
  const Limits limits = rules.limits(p, kind);
  const int next = rules.position(p) + 1;
  int64_t forced = -1;
  if (rank == 0 && warp == 0 && next < p.length) forced = p.forced[next];  // for the warp that merges
  List list;
  for (int index = own; index < span.tiles;) {
    Scored<EACH> lines[COUNT];
    uint2 forbidden[COUNT];
    tile.find_forbidden(limits, forbidden);
#pragma unroll
    for (int g = 0; g < COUNT; ++g)
      lines[g].template score<T>(tile.logits[g], tile.start + g * Span<T>::LINE, forbidden[g]);
    collect<ONE>(lines, k, list);
    index += step;
    if (index < span.tiles) tile.load(p, span, index);
  }
  device::cluster_wait();
  send(list, k, parts[rank * WARPS + warp], all_sent);
  if (rank > 0 || warp > 0) return;
  all_sent.wait(0);
  merge(p, query, k, forced, parts);
}

template <typename T>
auto kernel_for(int k) {
  return k == 1 ? fused_topk_kernel<T, true> : fused_topk_kernel<T, false>;
}

}  // namespace

// dtype: 0 float32, 1 float16, 2 bfloat16. Returns a cudaError_t.
extern "C" int fused_topk(const void* problem, int rows, int dtype, int pdl, void* stream) {
  const Problem& p = *static_cast<const Problem*>(problem);
  const auto kernel = dtype == 0   ? kernel_for<float>(p.k)
                      : dtype == 1 ? kernel_for<__half>(p.k)
                                   : kernel_for<__nv_bfloat16>(p.k);
  return launch(kernel, dim3(CLUSTER, p.queries, rows / p.queries), dim3(THREADS), stream, pdl, p);
}
