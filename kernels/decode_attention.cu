// Attention of a few new queries of each row over the row's cache, as the rows of a batch need it in a decode step:
// bound by the bytes of keys and values, which are read once for all queries.
//
// A block takes one head of one row; where there are fewer of those than the device has room for, a cluster of blocks
// splits the keys (flash-decoding: Dao et al. 2023, https://pytorch.org/blog/flash-decoding/) and merges in
// distributed shared memory, so there is no workspace. Eight lanes share a key, 16 bytes each. Self-attention first
// puts the queries' own keys and values into the cache. Sums are float, in the same order every time.
#include <cuda_fp16.h>
#include <cstdint>

#include "device.cuh"

namespace {

constexpr int kHead = 64;
constexpr int kPieces = kHead / 8;  // of 16 bytes
constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kAtOnce = 32 / kPieces;  // keys of a warp
constexpr int kMaxSplits = 8;
constexpr float kLowest = -1e30f;  // below any score, and finite: exp2(kLowest - kLowest) is no NaN

struct Problem {
  const __half* projected;   // [rows][queries][parts][heads][kHead]: query, and with 3 parts its key and value
  __half *keys, *values;     // [rows][heads][length][kHead]
  const int64_t* positions;  // [rows][queries], with 3 parts: where they stand, and the last that they see
  __half* out;               // [rows][queries][heads][kHead]
  int heads, queries, parts, length;
};

__device__ __forceinline__ void unpack(uint4 packed, float (&value)[8]) {
  const __half2* halves = reinterpret_cast<const __half2*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __half22float2(halves[i]);
    value[2 * i] = two.x, value[2 * i + 1] = two.y;
  }
}

// A softmax over part of the keys: its numerator, its largest score in powers of two, and its denominator.
struct Partial {
  float mixed[kHead];
  float max, sum;
};

// Element `column` of the merged numerators of `count` parts, with the rest by reference.
__device__ __forceinline__ float merged(const Partial* parts, int stride, int count, int column, float& max, float& sum) {
  max = kLowest;
  for (int i = 0; i < count; ++i) max = fmaxf(max, parts[i * stride].max);
  float mixed = 0.f;
  sum = 0.f;
  for (int i = 0; i < count; ++i) {
    const float weight = exp2f(parts[i * stride].max - max);
    mixed += parts[i * stride].mixed[column] * weight;
    sum += parts[i * stride].sum * weight;
  }
  return mixed;
}

// kQueries: at least p.queries; what lies beyond repeats the last of them and is not stored.
template <int kQueries>
__global__ void __launch_bounds__(kThreads) decode_attention_kernel(const __grid_constant__ Problem p) {
  constexpr int kUnroll = kQueries <= 2 ? 4 : 2;  // loads on their way, against registers
  __shared__ Partial of_warp[kWarps][kQueries], of_block[kMaxSplits][kQueries];
  const int splits = gridDim.x, split = blockIdx.x, head = blockIdx.y, row = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, piece = lane % kPieces;
  if (splits > 1) device::cluster_arrive();

  const int64_t width = static_cast<int64_t>(p.heads) * kHead;
  const __half* projected = p.projected + static_cast<int64_t>(row) * p.queries * p.parts * width + head * kHead;
  const int64_t cache = (static_cast<int64_t>(row) * p.heads + head) * p.length * kPieces;
  uint4* const keys = reinterpret_cast<uint4*>(p.keys) + cache;
  uint4* const values = reinterpret_cast<uint4*>(p.values) + cache;

  float query[kQueries][8];
  int seen[kQueries], most = 0;  // keys from the first on
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    const int index = min(q, p.queries - 1);
    unpack(reinterpret_cast<const uint4*>(projected + index * p.parts * width)[piece], query[q]);
#pragma unroll
    for (int i = 0; i < 8; ++i) query[q][i] *= 0.125f * 1.44269504f;  // 1 / sqrt(kHead), and exp2 in place of exp
    seen[q] = p.length;
    if (p.positions) seen[q] = static_cast<int>(min(p.positions[row * p.queries + index] + 1, int64_t(p.length)));
    most = max(most, seen[q]);
  }
  const int share = (most + splits - 1) / splits, begin = split * share, end = min(begin + share, most);

  if (p.positions) {
    for (int i = threadIdx.x; i < p.queries * 2 * kPieces; i += kThreads) {
      const int q = i / (2 * kPieces), part = i / kPieces % 2;  // 0: key, 1: value
      const int64_t slot = p.positions[row * p.queries + q];
      const uint4* fresh = reinterpret_cast<const uint4*>(projected + (q * p.parts + 1 + part) * width);
      if (slot >= begin && slot < end) (part ? values : keys)[slot * kPieces + i % kPieces] = fresh[i % kPieces];
    }
    __syncthreads();  // no other block reads these slots
  }

  float max[kQueries], sum[kQueries], mixed[kQueries][8] = {};
#pragma unroll
  for (int q = 0; q < kQueries; ++q) max[q] = kLowest, sum[q] = 0.f;
  for (int base = begin + warp * kAtOnce * kUnroll; base < end; base += kWarps * kAtOnce * kUnroll) {
    uint4 key[kUnroll], value[kUnroll];
    int slot[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      slot[u] = base + u * kAtOnce + lane / kPieces;
      const int there = min(slot[u], end - 1) * kPieces + piece;
      key[u] = __ldcg(keys + there), value[u] = __ldcg(values + there);
    }
    float weight[kQueries][kUnroll];  // at first the scores
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float element[8];
      unpack(key[u], element);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        float dot = 0.f;
#pragma unroll
        for (int i = 0; i < 8; ++i) dot = fmaf(element[i], query[q][i], dot);
        dot = device::sum_over_lanes<kPieces>(dot);
        weight[q][u] = slot[u] < min(end, seen[q]) ? dot : -INFINITY;
      }
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      float highest = max[q];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) highest = fmaxf(highest, weight[q][u]);
      const float before = exp2f(max[q] - highest);
      max[q] = highest, sum[q] *= before;
#pragma unroll
      for (int i = 0; i < 8; ++i) mixed[q][i] *= before;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) weight[q][u] = exp2f(weight[q][u] - highest), sum[q] += weight[q][u];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      float element[8];
      unpack(value[u], element);
#pragma unroll
      for (int q = 0; q < kQueries; ++q)
#pragma unroll
        for (int i = 0; i < 8; ++i) mixed[q][i] = fmaf(weight[q][u], element[i], mixed[q][i]);
    }
  }

  // The four groups of eight lanes, then the warps, then the blocks.
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    float highest = fmaxf(max[q], __shfl_xor_sync(device::kAllLanes, max[q], kPieces));
    highest = fmaxf(highest, __shfl_xor_sync(device::kAllLanes, highest, 2 * kPieces));
    const float weight = exp2f(max[q] - highest);
    float total = sum[q] * weight;
    total += __shfl_xor_sync(device::kAllLanes, total, kPieces);
    total += __shfl_xor_sync(device::kAllLanes, total, 2 * kPieces);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float part = mixed[q][i] * weight;
      part += __shfl_xor_sync(device::kAllLanes, part, kPieces);
      part += __shfl_xor_sync(device::kAllLanes, part, 2 * kPieces);
      if (lane < kPieces) of_warp[warp][q].mixed[piece * 8 + i] = part;
    }
    if (lane == 0) of_warp[warp][q].max = highest, of_warp[warp][q].sum = total;
  }
  __syncthreads();
  __half* out = p.out + static_cast<int64_t>(row) * p.queries * width + head * kHead;
  if (splits == 1) {
    for (int i = threadIdx.x; i < p.queries * kHead; i += kThreads) {
      const int q = i / kHead, column = i % kHead;
      float highest, total;
      const float whole = merged(&of_warp[0][q], kQueries, kWarps, column, highest, total);
      out[q * width + column] = __float2half(whole / total);
    }
    return;
  }
  device::cluster_wait();  // the first block runs, and its memory is there
  Partial(*first)[kQueries] = device::in_block(of_block, 0);
  for (int i = threadIdx.x; i < p.queries * kHead; i += kThreads) {
    const int q = i / kHead, column = i % kHead;
    float highest, total;
    first[split][q].mixed[column] = merged(&of_warp[0][q], kQueries, kWarps, column, highest, total);
    if (column == 0) first[split][q].max = highest, first[split][q].sum = total;
  }
  device::cluster_sync();
  if (split > 0) return;
  for (int i = threadIdx.x; i < p.queries * kHead; i += kThreads) {
    const int q = i / kHead, column = i % kHead;
    float highest, total;
    const float whole = merged(&of_block[0][q], kQueries, splits, column, highest, total);
    out[q * width + column] = __float2half(whole / total);
  }
}

}  // namespace

// splits: 1, 2, 4 or 8. Returns a cudaError_t.
extern "C" int decode_attention(const void* problem, int rows, int splits, void* stream) {
  const Problem& p = *static_cast<const Problem*>(problem);
  const auto kernel = p.queries == 1   ? decode_attention_kernel<1>
                      : p.queries == 2 ? decode_attention_kernel<2>
                      : p.queries <= 4 ? decode_attention_kernel<4>
                                       : decode_attention_kernel<8>;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = splits;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(splits, p.heads, rows);
  config.blockDim = dim3(kThreads);
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = splits > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, p);
}
