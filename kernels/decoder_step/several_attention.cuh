// Self- or cross-attention of a decode step, for several queries at once.
#pragma once
#include <type_traits>

#include "several_norm.cuh"
#include "several_softmax.cuh"

template <int kRows, int kKeys>
struct alignas(16) AttentionMemory {
  Weight into[kRows][kD + kGap];
  TileEnd<kRows> end;
  union {  // the norm has been applied before there are parts
    float norm[2][kD];
    Parts<kRows> parts;
  };
  Cache<kKeys> cache;  // in the last block of self-attention the queries' own keys and values follow the others
  union {  // x isn't needed any more in any block when the first sends its softmax
    Operand<kD> x;
    Partial of_block[kCluster][kQueries];
  };
  Operand<kHead> queries, mixed;
  float carried[kQueries][kSlice];
  Moments moments;
  device::Mbarrier weights, projected, partials;
};

using SelfMemory = AttentionMemory<kSelfRows, rounded(share(SELF_LENGTH) + kQueries)>;
using CrossMemory = AttentionMemory<kCrossRows, rounded(share(CROSS_LENGTH))>;

// The part of `all` keys that is `rank`'s: each block has as many as the first, but for the last ones.
__device__ __forceinline__ int count_of(int all, int rank) { return max(0, min(share(all), all - rank * share(all))); }

// Sums of the parts are projections into the head: queries go to all blocks, new keys and values to the last (from
// row `at` of its cache on), and into the cache of later steps.
template <int kRows, typename Memory>
__device__ __forceinline__ void send_projections(Memory& memory, const Attention& args, int rank, int head,
                                                 int64_t position, int at) {
  if (threadIdx.x / 32 * 32 >= Parts<kRows>::kSums) return;
  const int which = min(static_cast<int>(threadIdx.x), Parts<kRows>::kSums - 1), q = which / kRows, mine = which % kRows;
  const int part = (rank * kRows + mine) / kHead, column = (rank * kRows + mine) % kHead;
  float value = memory.parts.total(which) * memory.end.into_scale[mine] + memory.end.into_bias[mine];
  if (part == 0) value *= 0.125f * 1.44269504f;  // 64^-1/2, and scores as powers of 2
  const uint4 four = of_four_lanes(split(value));
  if (threadIdx.x >= Parts<kRows>::kSums) return;
  const int turn = threadIdx.x % 4, first = column - turn;
  if (part == 0) {
#pragma unroll
    for (int to = turn; to < kCluster; to += 4)
      device::send(reinterpret_cast<uint4*>(&memory.queries.pairs[q][first / 2]), to, four, memory.projected);
    return;
  }
  const uint2 rounded = {four.x, four.z};
  auto& cache = part == 1 ? memory.cache.keys : memory.cache.values;
  __half* const later = (part == 1 ? args.keys : args.values) + (static_cast<int64_t>(head) * args.length + position + q) * kHead;
  if (turn == 0)
    device::send(reinterpret_cast<uint2*>(&cache[at + q][place_of(at + q, first / 8) + first % 8]), kCluster - 1, rounded,
                 memory.projected);
  if (turn == 1 && position + q < args.length) *reinterpret_cast<uint2*>(later + first) = rounded;
}

// Softmax over this block's keys, to all blocks.
template <typename Memory>
__device__ __forceinline__ void send_partials(Memory& memory, int rank, int parts) {
  using Own = decltype(memory.cache);
#pragma unroll
  for (int i = threadIdx.x; i < kQueries * kHead; i += kThreads) {
    const int q = i / kHead, column = i % kHead, turn = column % 4, first = threadIdx.x % 32 - turn;
    float2 sums;
    const float mixed = merged<Own::kParts>(
        parts, [&](int p) { return memory.cache.sums[p][q]; }, [&](int p) { return memory.cache.mixed(p, q, column); },
        sums);
    const float4 four = {__shfl_sync(kAllLanes, mixed, first), __shfl_sync(kAllLanes, mixed, first + 1),
                         __shfl_sync(kAllLanes, mixed, first + 2), __shfl_sync(kAllLanes, mixed, first + 3)};
    Partial& mine = memory.of_block[rank][q];
#pragma unroll
    for (int to = turn; to < kCluster; to += 4) {
      device::send(reinterpret_cast<float4*>(&mine.mixed[column - turn]), to, four, memory.partials);
      if (column < 4) device::send(reinterpret_cast<float4*>(&mine.max), to, {sums.x, sums.y}, memory.partials);
    }
  }
}

template <typename Memory>
__device__ __forceinline__ void merge_blocks(Memory& memory) {
#pragma unroll
  for (int i = threadIdx.x; i < kQueries * kHead; i += kThreads) {
    const int q = i / kHead, column = i % kHead;
    float2 sums;
    const float mixed = merged<kCluster>(
        kCluster, [&](int p) { return *reinterpret_cast<const float2*>(&memory.of_block[p][q].max); },
        [&](int p) { return memory.of_block[p][q].mixed[column]; }, sums);
    store(memory.mixed, q, column, __fdividef(mixed, sums.y));
  }
}

constexpr int kOutTiles = (kSlice / 8 + kWarps - 1) / kWarps;  // of 8 rows, for a warp
// Which row of a tile is a lane's column of the operand: such that columns 2t are rows 0 to 3, and 2t + 1 the others.
__device__ __forceinline__ int out_row(int tile, int column) { return tile * 8 + column % 2 * 4 + column / 2; }

__device__ __forceinline__ void load_out(const Weight (&out_of)[kSlice][kHead], uint4 (&weights)[kOutTiles][2]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int turn = 0; turn < kOutTiles; ++turn)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = out_row(min(warp + turn * kWarps, kSlice / 8 - 1), row_of_lane());
      weights[turn][half] = halves(*reinterpret_cast<const Weights8*>(&out_of[row][half * 32 + lane % 4 * 8]));
    }
}

// This head's part of the output projection, for this block's slice of the residual.
template <typename Memory>
__device__ __forceinline__ void add_output(const Memory& memory, const uint4 (&weights)[kOutTiles][2], bool carries,
                                           Fixed* out) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint4 in[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) in[i] = memory.mixed.at(query_of_lane(), i / 2 * 32 + lane % 4 * 8 + i % 2 * 4);
#pragma unroll
  for (int turn = 0; turn < kOutTiles; ++turn) {
    const int tile = warp + turn * kWarps;
    if (tile >= kSlice / 8) break;
    Sums sums = {};
    multiply(sums, in[0], in[1], weights[turn][0]);
    multiply(sums, in[2], in[3], weights[turn][1]);
    const float2 both = total(sums);
    if (row_of_lane() >= kQueries) continue;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = out_row(tile, lane % 4 * 2 + i);
      float value = (i ? both.y : both.x) * memory.end.out_scale[row];
      if (carries) value += memory.end.out_bias[row] + memory.carried[row_of_lane()][row];
      add(&out[row_of_lane() * kD + row], to_fixed(value));
    }
  }
}

// A block of attention for one head (blockIdx.y) by one cluster.
template <bool kCross>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, kBlocksAtOnce) attention_block(const Attention args) {
  constexpr int kRows = kCross ? kCrossRows : kSelfRows;
  using Memory = std::conditional_t<kCross, CrossMemory, SelfMemory>;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  Memory& memory = *reinterpret_cast<Memory*>(raw_memory);
  const int rank = blockIdx.x, head = blockIdx.y;
  const bool own = !kCross && rank == kCluster - 1, is_first_layer = !kCross && args.tokens.token_embedding != nullptr;
  if (threadIdx.x == 0) {
    memory.weights.init();
    memory.projected.init();
    memory.partials.init();
    const uint32_t vectors = kQueries * kHead * 2 * sizeof(__half);  // queries in two halves; keys and values
    memory.projected.expect(own ? 2 * vectors : vectors);
    memory.partials.expect(kCluster * kQueries * sizeof(Partial));
    memory.weights.expect(sizeof(Tile<kRows>) + sizeof(memory.norm));
  }
  __syncthreads();
  const uint8_t* const tile = args.tiles + (head * kCluster + rank) * sizeof(Tile<kRows>);
  copy_rows(memory.weights, memory.into, tile);
  if (threadIdx.x == 0) {
    memory.weights.copy(&memory.end, tile + kRows * kD * sizeof(Weight), sizeof(memory.end));
    memory.weights.copy(memory.norm, args.norm, sizeof(memory.norm));
  }
  __syncwarp();
  device::cluster_arrive();

  int64_t position = 0;
  int count = 0, before_own = 0;  // keys of this block; of the last, beside those of the queries
  auto fetch_cache = [&] {  // the keys before the queries' own, split among the blocks
    // From the L2 cache, where the kernel that wrote it has left it: this one may not have waited yet.
    if (!kCross) position = __ldcg(args.tokens.position);
    const int all = kCross ? args.length : static_cast<int>(position);
    count = count_of(all, rank), before_own = count_of(all, kCluster - 1);
    const int64_t from = (static_cast<int64_t>(head) * args.length + rank * share(all)) * kHead + threadIdx.x * 8;
    const int row = threadIdx.x / 8, place = place_of(row, threadIdx.x % 8);  // the same in every turn
    static_assert(kThreads / 8 % 8 == 0 && kHead == 64, "a row is eight pieces, and places repeat after eight rows");
    for (int first = 0; first + row < count; first += kThreads / 8) {
      device::copy_16_bytes_async(&memory.cache.keys[first + row][place], args.keys + from + first * kHead);
      device::copy_16_bytes_async(&memory.cache.values[first + row][place], args.values + from + first * kHead);
    }
    const int end = count + own * kQueries;  // what follows has weight 0, and has to be finite
    if (end + row < rounded(end)) *reinterpret_cast<uint4*>(&memory.cache.values[end + row][place]) = {};
  };
  // Kernels let the next begin after their own wait, so what this one overlaps with is the one before alone, which
  // writes none of this. Before the first layer that may be what chooses the token.
  if (!is_first_layer) fetch_cache();
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  device::cluster_wait();
  float2 raw[kMine];
  if (is_first_layer) {
    fetch_cache();
    load_embedded(args.tokens, position, raw);
  } else {
    load_residual(args.residual.in, raw);
  }
  if (head == 0) keep_slice(raw, rank, memory.carried);
  if (head == HEADS - 1) clear_slice(args.residual.clear, rank);
  memory.weights.wait(0);
  layer_norm(raw, memory.norm, memory.moments, memory.x);

  rows_times_x(memory.into, memory.x, memory.parts);
  device::wait_for_async_copies();
  __syncthreads();
  // x has been read: its numbers went into the sums that were stored before this barrier.
  device::cluster_arrive();
  send_projections<kRows>(memory, args, rank, head, position, before_own);
  uint4 weights[kOutTiles][2];
  load_out(memory.end.out_of, weights);
  memory.projected.wait(0);
  attend(memory.cache, count, own, memory.queries);
  __syncthreads();
  device::cluster_wait();
  send_partials(memory, rank, min(kWarps, rounded(count + own * kQueries) / kKeyTile));
  memory.partials.wait(0);
  merge_blocks(memory);
  __syncthreads();
  add_output(memory, weights, head == 0, args.residual.out + rank * kSlice);
}
