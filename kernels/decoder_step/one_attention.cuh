// Self- or cross-attention of a decode step for one query: norm, projections, softmax over the cache, output
// projection.
#pragma once
#include <type_traits>

#include "one_rows.cuh"

__device__ __forceinline__ float embedded(const Tokens& tokens, int64_t position, int column) {
  const int64_t token = tokens.history[position];
  return __half2float(tokens.token_embedding[token * kD + column]) + __half2float(tokens.position_embedding[position * kD + column]);
}

// A softmax over part of the keys that can be merged with that over others.
struct alignas(16) Partial {
  float mixed[kHead];
  float max, sum;
  float unused[2];
};

template <int kRows, int kKeys>
struct alignas(16) AttentionMemory {
  Tile<kRows> tile;
  float norm[2][kD];
  __half keys[kKeys][kHead];
  __half values[kKeys][kHead];
  alignas(16) float x[kD];
  alignas(16) float fresh[3][kHead];  // the query; in the last block, its own key and value
  alignas(16) float mixed[1][kHead];
  float carried[kSlice];
  Partial of_warp[kWarps][1];
  Partial of_block[kCluster][1];
  Moments moments;
  device::Mbarrier weights, projected, partials;
};

using SelfMemory = AttentionMemory<kSelfRows, share(SELF_LENGTH)>;
using CrossMemory = AttentionMemory<kCrossRows, share(CROSS_LENGTH)>;

// A softmax that grows key by key; 8 of its elements.
struct Running {
  float max = -1e30f, sum = 0.f, mixed[8] = {};

  __device__ __forceinline__ void add(float score, const float (&value)[8], bool seen) {
    const float highest = seen ? fmaxf(max, score) : max;
    const float before = __expf(max - highest), now = seen ? __expf(score - highest) : 0.f;
    max = highest, sum = sum * before + now;
#pragma unroll
    for (int i = 0; i < 8; ++i) mixed[i] = mixed[i] * before + now * value[i];
  }
};

__device__ __forceinline__ float dot(const float (&a)[8], const float (&b)[8]) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(a[i], b[i], sum);
  return sum;
}

__device__ __forceinline__ void load(const float* from, float (&to)[8]) {
  *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
  *reinterpret_cast<float4*>(to + 4) = *reinterpret_cast<const float4*>(from + 4);
}

// Softmax over `count` keys of this block, and with `own` over that of the query itself. 8 lanes a key, 8 elements
// a lane.
template <int kKeys>
__device__ __forceinline__ void attend(const __half (&keys)[kKeys][kHead], const __half (&values)[kKeys][kHead],
                                       int count, bool own, const float (&fresh)[3][kHead],
                                       Partial (&of_warp)[kWarps][1]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = lane % 8 * 8;
  float key[8], value[8], query[8];
  Running running;
  load(&fresh[0][column], query);
  // All lanes of a warp take part in its shuffles, so its groups go on until the last of them is done.
  for (int base = warp * 4; base < count; base += kThreads / 8) {
    const bool there = base + lane / 8 < count;
    const int k = there ? base + lane / 8 : base;
    unpack(*reinterpret_cast<const uint4*>(&keys[k][column]), key);
    unpack(*reinterpret_cast<const uint4*>(&values[k][column]), value);
    running.add(device::sum_over_lanes<8>(dot(key, query)), value, there);
  }
  if (own && warp == 0) {
    load(&fresh[1][column], key);
    load(&fresh[2][column], value);
    running.add(device::sum_over_lanes<8>(dot(key, query)), value, warp * 4 + lane / 8 == 0);  // the first group alone
  }
  float highest = fmaxf(running.max, __shfl_xor_sync(kAllLanes, running.max, 8));
  highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 16));
  const float weight = __expf(running.max - highest);
  float total = running.sum * weight;
  total += __shfl_xor_sync(kAllLanes, total, 8);
  total += __shfl_xor_sync(kAllLanes, total, 16);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float part = running.mixed[i] * weight;
    part += __shfl_xor_sync(kAllLanes, part, 8);
    part += __shfl_xor_sync(kAllLanes, part, 16);
    if (lane < 8) of_warp[warp][0].mixed[column + i] = part;
  }
  if (lane == 0) of_warp[warp][0].max = highest, of_warp[warp][0].sum = total;
}

// Four columns of the merged softmax of several parts: its numerator, and by reference the rest.
template <int kParts>
__device__ __forceinline__ float4 merged(const Partial (&parts)[kParts][1], int q, int column, float& max, float& sum) {
  max = -1e30f, sum = 0.f;
#pragma unroll
  for (int p = 0; p < kParts; ++p) max = fmaxf(max, parts[p][q].max);
  float4 mixed = {};
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const float weight = __expf(parts[p][q].max - max);
    const float4 part = *reinterpret_cast<const float4*>(&parts[p][q].mixed[column]);
    sum = fmaf(parts[p][q].sum, weight, sum);
    mixed.x = fmaf(part.x, weight, mixed.x), mixed.y = fmaf(part.y, weight, mixed.y);
    mixed.z = fmaf(part.z, weight, mixed.z), mixed.w = fmaf(part.w, weight, mixed.w);
  }
  return mixed;
}

// A block of attention for one head (blockIdx.y) by one cluster.
template <bool kCross>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads) attention_block(const Attention args) {
  constexpr int kRows = kCross ? kCrossRows : kSelfRows, kRowsPerWarp = kRows / kWarps;
  static_assert(kRows % kWarps == 0, "every warp has as many rows");
  using Memory = std::conditional_t<kCross, CrossMemory, SelfMemory>;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  Memory& memory = *reinterpret_cast<Memory*>(raw_memory);
  const int rank = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32;
  const bool is_last = rank == kCluster - 1, is_first_layer = !kCross && args.tokens.token_embedding != nullptr;
  __half* const keys = args.keys + static_cast<int64_t>(head) * args.length * kHead;
  __half* const values = args.values + static_cast<int64_t>(head) * args.length * kHead;

  int count = max(0, min(share(args.length), args.length - rank * share(args.length)));  // keys for this block
  if (threadIdx.x == 0) {
    memory.weights.init();
    memory.projected.init();
    memory.partials.init();
    const uint32_t vector = kHead * sizeof(float), chunk = kCross ? count * kHead * sizeof(__half) : 0;
    memory.projected.expect(!kCross && is_last ? 3 * vector : vector);
    memory.partials.expect(sizeof(memory.of_block));
    memory.weights.expect(sizeof(memory.tile) + sizeof(memory.norm) + 2 * chunk);
    memory.weights.copy(&memory.tile, args.tiles + (head * kCluster + rank) * sizeof(memory.tile), sizeof(memory.tile));
    memory.weights.copy(memory.norm, args.norm, sizeof(memory.norm));
    if (chunk) {
      memory.weights.copy(memory.keys, keys + rank * share(args.length) * kHead, chunk);
      memory.weights.copy(memory.values, values + rank * share(args.length) * kHead, chunk);
    }
  }
  device::cluster_arrive();

  int64_t position = 0;
  auto fetch_cache = [&] {  // the keys before the query's own, split among the blocks
    // From the L2 cache, where the kernel that wrote it has left it: this one may not have waited yet.
    position = __ldcg(args.tokens.position);
    const int each = share(static_cast<int>(position)), first = rank * each;
    count = max(0, min(each, static_cast<int>(position) - first));
    for (int i = threadIdx.x; i < count * 8; i += kThreads) {
      device::copy_16_bytes_async(&memory.keys[i / 8][i % 8 * 8], keys + (first * 8 + i) * 8);
      device::copy_16_bytes_async(&memory.values[i / 8][i % 8 * 8], values + (first * 8 + i) * 8);
    }
  };
  // Kernels let the next begin after their own wait, so what this one overlaps with is the one before alone, which
  // writes none of this. Before the first layer that may be what chooses the token.
  if (!kCross && !is_first_layer) fetch_cache();
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  device::cluster_wait();
  if (is_first_layer) fetch_cache();
  float raw[kPerThread];
  if (is_first_layer) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
      if (threadIdx.x + i * kThreads < kD) raw[i] = embedded(args.tokens, position, threadIdx.x + i * kThreads);
  } else {
    load_residual(args.residual.in, raw);
  }
  if (head == 0) keep_slice(raw, rank, memory.carried);
  if (head == HEADS - 1) clear_slice(args.residual.clear, rank);
  memory.weights.wait(0);
  layer_norm(raw, memory.norm[0], memory.norm[1], memory.moments, memory.x);

  // Projections into the head: the query goes to all blocks, its key and value to the last, and into the cache.
  const Product product = rows_times_x<kRowsPerWarp>(&memory.tile.into[warp * kRowsPerWarp], memory.x);
  if (product.row < kRowsPerWarp) {
    const int mine = warp * kRowsPerWarp + product.row, part = (rank * kRows + mine) / kHead;
    const int column = (rank * kRows + mine) % kHead;
    const float value = product.value * memory.tile.end.into_scale[mine] + memory.tile.end.into_bias[mine];
    if (part == 0) {
      for (int to = product.copy; to < kCluster; to += Products<kRowsPerWarp>::kCopies)
        device::send(&memory.fresh[0][column], to, value * 0.125f, memory.projected);  // 64^-1/2
    } else if (product.copy == 0) {
      const __half rounded = __float2half_rn(value);
      device::send(&memory.fresh[part][column], kCluster - 1, __half2float(rounded), memory.projected);
      if (position < args.length) (part == 1 ? keys : values)[position * kHead + column] = rounded;
    }
  }
  if constexpr (!kCross) {
    device::wait_for_async_copies();
    __syncthreads();
  }
  memory.projected.wait(0);
  attend(memory.keys, memory.values, count, !kCross && is_last, memory.fresh, memory.of_warp);
  __syncthreads();
  constexpr int kFours = kHead / 4;
  for (int i = threadIdx.x; i < kCluster * kFours; i += kThreads) {
    const int column = i % kFours * 4, to = i / kFours % kCluster, q = i / kFours / kCluster;
    float max, sum;
    const float4 mixed = merged(memory.of_warp, q, column, max, sum);
    Partial& mine = memory.of_block[rank][q];
    device::send(reinterpret_cast<float4*>(&mine.mixed[column]), to, mixed, memory.partials);
    if (column == 0) device::send(reinterpret_cast<float4*>(&mine.max), to, {max, sum}, memory.partials);
  }
  memory.partials.wait(0);
  for (int i = threadIdx.x; i < kFours; i += kThreads) {
    const int column = i % kFours * 4, q = i / kFours;
    float max, sum;
    const float4 mixed = merged(memory.of_block, q, column, max, sum);
    const float4 result = {mixed.x / sum, mixed.y / sum, mixed.z / sum, mixed.w / sum};
    *reinterpret_cast<float4*>(&memory.mixed[q][column]) = result;
  }
  __syncthreads();

  // This head's part of the output projection, for this block's slice of the residual: 8 lanes a row, and a warp
  // takes kTurns times 4 rows.
  constexpr int kTurns = (kSlice + kThreads / 8 - 1) / (kThreads / 8), kValues = power_of_two(kTurns);
  static_assert(kValues <= 8, "one value a lane");
  const int lane = threadIdx.x % 32, column = lane % 8 * 8;
  float weight[kTurns][8];
#pragma unroll
  for (int t = 0; t < kTurns; ++t) {
    const int row = min(t * (kThreads / 8) + warp * 4 + lane / 8, kSlice - 1);
    unpack(*reinterpret_cast<const Weights8*>(&memory.tile.end.out_of[row][column]), weight[t]);
  }
  const int turn = lane % 8 / (8 / kValues), row = turn * (kThreads / 8) + warp * 4 + lane / 8;
  const bool adds = lane % (8 / kValues) == 0 && row < kSlice;
  float mixed[8], sum[kValues] = {};
  load(&memory.mixed[0][column], mixed);
#pragma unroll
  for (int t = 0; t < kTurns; ++t) sum[t] = dot(weight[t], mixed);
  float value = device::sums_over_warp<kValues, 4>(sum);
  if (adds) {
    value *= memory.tile.end.out_scale[row];
    if (head == 0) value += memory.tile.end.out_bias[row] + memory.carried[row];
    add(&args.residual.out[rank * kSlice + row], to_fixed(value));
  }
}
