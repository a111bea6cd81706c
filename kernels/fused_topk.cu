// The k best next tokens of each row of logits, under Whisper's rules, and their log-probabilities, in one
// launch.
//
// A row belongs to one cluster of CLUSTER blocks, which reads it once. Every warp keeps the k best of its
// tokens, a block merges its warps, and the first block merges the cluster through distributed shared memory.
// So there is no workspace: nothing in a captured graph can point to memory that was given to someone else.
//
// Text and timestamps are kept apart up to the end, since only then it is known whether the sum of the
// timestamps' probabilities forbids all text. The result is the same in every run: no atomics, fixed order of
// all sums.
#include <cfloat>
#include <climits>
#include <cooperative_groups.h>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device.cuh"
#include "launch.cuh"
#include "logit_rows.cuh"

namespace {

namespace cg = cooperative_groups;

constexpr int CLUSTER = 8;  // the largest that every GPU with clusters has
constexpr int TOKENS = 32;  // a thread holds in registers: a cluster 65536, more than Whisper's vocabulary
constexpr int MAX_K = 8;

// A token with its logit as an unsigned number of the same order; 0: there is none.
struct Candidate {
  uint32_t order;
  int id;
};

// What one warp or block found of a kind: the sum of exp(logit - best logit), and the k best, best first.
struct Part {
  Candidate best[MAX_K];
  float sum;
};

__device__ uint32_t order_of(float logit) {
  if (!(logit > -INFINITY)) return 0;                 // NaN, too
  const float finite = fminf(logit, FLT_MAX) + 0.0f;  // -0.0 is no smaller than 0.0
  const int bits = __float_as_int(finite);
  return bits ^ ((bits >> 31) | 0x80000000);
}

__device__ float logit_of(uint32_t order) {
  if (order == 0) return -INFINITY;
  return __uint_as_float(order ^ (order >> 31 ? 0x80000000u : 0xffffffffu));
}

// exp(logit - top), where top is the larger and there may be none of both.
__device__ float relative(uint32_t order, uint32_t top) {
  return order == 0 ? 0.0f : __expf(logit_of(order) - logit_of(top));
}

__device__ bool better(Candidate a, Candidate b) {
  return a.order > b.order || (a.order == b.order && a.id < b.id);
}

__device__ Candidate best_of_warp(Candidate own) {
  const uint32_t order = __reduce_max_sync(device::kAllLanes, own.order);
  const unsigned wanted = own.order == order ? static_cast<unsigned>(own.id) : UINT_MAX;
  const unsigned id = __reduce_min_sync(device::kAllLanes, wanted);
  return {order, static_cast<int>(id)};
}

// The k best of all lanes' candidates, given to `take(rank, candidate)`.
template <int EACH, typename Take>
__device__ void merge(Candidate (&own)[EACH], int k, Take take) {
  for (int rank = 0; rank < k; ++rank) {
    Candidate mine = own[0];
#pragma unroll
    for (int i = 1; i < EACH; ++i)
      if (better(own[i], mine)) mine = own[i];
    const Candidate top = best_of_warp(mine);
    take(rank, top);
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (own[i].id == top.id) own[i].order = 0;
  }
}

// One group under the rules, with its best token.
template <int EACH>
struct Scored {
  uint32_t orders[EACH];
  Candidate best{0, 0};
  int start, kind = TEXT;

  __device__ void find_best() {
    best = {0, 0};
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (orders[i] > best.order) best = {orders[i], start + i};
  }
  template <typename T>
  __device__ void score(const Group<T>& group, const Row<T>& row, int index, const Limits& limits) {
    start = row.start(index);
    kind = row.kind(index);
    const int low = kind == TEXT ? limits.text_low : limits.low;
    const int high = kind == TEXT ? INT_MAX : limits.high;
    const uint64_t flags = group.flags();
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const bool flagged = (flags >> (8 * i)) & limits.flags;
      const bool allowed = !flagged && start + i >= low && start + i <= high;
      orders[i] = allowed ? order_of(static_cast<float>(group.logits[i])) : 0;
    }
    find_best();
  }
  __device__ void remove(Candidate token) {
    if (best.order == 0 || best.order != token.order || best.id != token.id) return;
#pragma unroll
    for (int i = 0; i < EACH; ++i)
      if (start + i == token.id) orders[i] = 0;
    find_best();
  }
  __device__ float sum(uint32_t top) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; ++i) sum += relative(orders[i], top);
    return sum;
  }
};

// The k best tokens of one kind that the warp holds in `groups` or already has in `part`, into `part`.
template <int COUNT, int EACH>
__device__ void collect(Scored<EACH> (&groups)[COUNT], int kind, int k, bool add, Part& part) {
  const int lane = threadIdx.x % 32;
  Candidate held{0, 0};
  if (add && lane < k) held = part.best[lane];
  const auto best = [&] {
    Candidate own = held;  // of smaller id than those in groups
#pragma unroll
    for (int g = 0; g < COUNT; ++g)
      if (groups[g].kind == kind && groups[g].best.order > own.order) own = groups[g].best;
    return best_of_warp(own);
  };
  Candidate top = best();
  float sum = 0.0f;
#pragma unroll
  for (int g = 0; g < COUNT; ++g)
    if (groups[g].kind == kind && groups[g].best.order > 0) sum += groups[g].sum(top.order);
  sum = device::sum_over_lanes<32>(sum);
  if (add) sum += part.sum * relative(part.best[0].order, top.order);
  __syncwarp();
  for (int rank = 0;;) {
    if (lane == 0) part.best[rank] = top;
    if (++rank == k) break;
    if (held.id == top.id) held.order = 0;
#pragma unroll
    for (int g = 0; g < COUNT; ++g) groups[g].remove(top);
    top = best();
  }
  if (lane == 0) part.sum = sum;
  __syncwarp();
}

// One warp: the parts of a block's warps into one part of the first block's.
__device__ void merge_block(const Part* parts, int k, Part* merged) {
  const int lane = threadIdx.x % 32;
  Candidate own[WARPS * MAX_K / 32];
#pragma unroll
  for (int i = 0; i < WARPS * MAX_K / 32; ++i) {
    const int slot = lane + 32 * i;
    own[i] = slot % MAX_K < k ? parts[slot / MAX_K].best[slot % MAX_K] : Candidate{0, 0};
  }
  const uint32_t order = lane < WARPS ? parts[lane].best[0].order : 0;
  const uint32_t top = __reduce_max_sync(device::kAllLanes, order);
  const float sum = device::sum_over_lanes<32>(order == 0 ? 0.0f : parts[lane].sum * relative(order, top));
  if (lane == 0) merged->sum = sum;
  merge(own, k, [&](int rank, Candidate found) {
    if (lane == 0) merged->best[rank] = found;
  });
}

// One warp: the parts of all blocks to the result. parts: [kind][block].
__device__ void finish(const Problem& p, int query, int64_t forced, const Part (*parts)[CLUSTER]) {
  constexpr int EACH = 2 * CLUSTER * MAX_K / 32;
  const int lane = threadIdx.x % 32, kind = lane / CLUSTER % 2;
  const bool stamps = p.timestamp_begin >= 0, valid = lane < CLUSTER || (stamps && lane < 2 * CLUSTER);
  const uint32_t order = valid ? parts[kind][lane % CLUSTER].best[0].order : 0;
  const uint32_t top_text = __reduce_max_sync(device::kAllLanes, kind == TEXT ? order : 0);
  const uint32_t top_stamp = __reduce_max_sync(device::kAllLanes, kind == STAMP ? order : 0);
  const uint32_t top_kind = kind == TEXT ? top_text : top_stamp;
  float sum = order == 0 ? 0.0f : parts[kind][lane % CLUSTER].sum * relative(order, top_kind);
  sum = device::sum_over_lanes<CLUSTER>(sum);
  const float text_sum = __shfl_sync(device::kAllLanes, sum, 0);
  const float stamp_sum = __shfl_sync(device::kAllLanes, sum, CLUSTER);

  float logsumexp = logit_of(top_stamp) + logf(stamp_sum);  // -inf without any
  const bool only_stamps = top_stamp > 0 && logsumexp > logit_of(top_text);
  if (!only_stamps) {
    const uint32_t top = max(top_text, top_stamp);
    const float all = text_sum * relative(top_text, top) + stamp_sum * relative(top_stamp, top);
    logsumexp = logit_of(top) + logf(all);  // -inf + -inf where nothing is left
  }

  Candidate own[EACH];
#pragma unroll
  for (int i = 0; i < EACH; ++i) {
    const int slot = lane + 32 * i, from = slot / MAX_K;
    const bool counts = slot % MAX_K < p.k && (from < CLUSTER ? !only_stamps : stamps);
    own[i] = counts ? parts[from / CLUSTER][from % CLUSTER].best[slot % MAX_K] : Candidate{0, 0};
  }
  if (forced >= 0) logsumexp = 0.0f;
  if (lane == 0) p.logsumexp[query] = logsumexp;
  merge(own, p.k, [&](int rank, Candidate found) {
    int64_t id = found.order > 0 ? found.id : p.end;
    float logprob = found.order > 0 ? logit_of(found.order) - logsumexp : -INFINITY;
    if (forced >= 0) {
      id = rank == 0 ? forced : p.end;
      logprob = rank == 0 ? 0.0f : -INFINITY;
    }
    if (lane == 0) {
      p.ids[query * p.k + rank] = id;
      p.logprobs[query * p.k + rank] = logprob;
    }
  });
}

template <typename T>
__global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
  fused_topk_kernel(const __grid_constant__ Problem p) {
  constexpr int EACH = Row<T>::EACH, COUNT = TOKENS / EACH;
  __shared__ Part of_warp[2][WARPS], of_block[2][CLUSTER];
  const cg::cluster_group cluster = cg::this_cluster();
  const int query = blockIdx.y, warp = threadIdx.x / 32, rank = static_cast<int>(cluster.block_rank());
  const int kinds = p.timestamp_begin >= 0 ? 2 : 1;
  cluster.barrier_arrive();  // awaited before anything is written to another block: it has to run by then
  device::let_next_kernel_begin();
  device::wait_for_previous_kernel();

  const Row<T> row(p, query);
  Limits limits;
  for (int first = 0; first < row.groups; first += CLUSTER * THREADS * COUNT) {
    const int own = first + rank * THREADS + static_cast<int>(threadIdx.x);
    Group<T> loaded[COUNT];
    Scored<EACH> groups[COUNT];
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      const int index = own + g * CLUSTER * THREADS;
      if (index < row.groups) loaded[g].load(p, row, index);
    }
    if (first == 0) limits = find_limits(p, query);  // while the logits are on their way
#pragma unroll
    for (int g = 0; g < COUNT; ++g) {
      const int index = own + g * CLUSTER * THREADS;
      if (index < row.groups) groups[g].score(loaded[g], row, index, limits);
    }
    for (int kind = 0; kind < kinds; ++kind) collect(groups, kind, p.k, first > 0, of_warp[kind][warp]);
  }
  __syncthreads();
  cluster.barrier_wait();
  if (warp < kinds) merge_block(of_warp[warp], p.k, cluster.map_shared_rank(&of_block[warp][rank], 0));
  cluster.sync();
  if (rank == 0 && warp == 0) finish(p, query, limits.forced, of_block);
}

}  // namespace

// dtype: 0 float32, 1 float16, 2 bfloat16. Returns a cudaError_t.
extern "C" int fused_topk(const void* problem, int rows, int dtype, int dependent, void* stream) {
  const auto kernel = dtype == 0   ? fused_topk_kernel<float>
            : dtype == 1 ? fused_topk_kernel<__half>
                                     : fused_topk_kernel<__nv_bfloat16>;
  return launch(kernel, dim3(CLUSTER, rows), dim3(THREADS), stream, dependent, *static_cast<const Problem*>(problem));
}
