// One decode step of Whisper at batch 1 in 3 kernels a layer: self-attention, cross-attention, MLP; then the
// vocabulary. Compiled for the shapes of one checkpoint (D_MODEL, HEADS, FFN, ...) and a number of QUERIES.
//
// At batch 1 a step is bound by latency, not bytes, so what counts is the number of times that all blocks have to
// wait for each other. Here that is 3 times a layer:
// - A cluster of CLUSTER blocks does a whole attention block for one head: norm, its rows of the projections, its
//   share of the keys, and the head's part of the output projection. Its blocks exchange queries and partial
//   softmaxes through distributed shared memory (split-K flash-decoding: Dao et al. 2023,
//   https://pytorch.org/blog/flash-decoding/).
// - Each kernel copies its weights into shared memory before it waits for the one before (programmatic dependent
//   launch), so that memory is read all the time.
// - What the heads, or slices of the MLP, add to the residual is summed with integer atomics in fixed point:
//   in any order the same sum, so the tokens are the same every time.
// Sums of products are float, whatever the type of the weights.
#include <type_traits>

#include "device.cuh"

using device::kAllLanes;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kHead = 64;
constexpr int kD = D_MODEL;
constexpr int kQueries = QUERIES;
constexpr int kCluster = CLUSTER;
constexpr int kSlice = kD / kCluster;  // of the residual, for one block of a cluster
constexpr int kUnits = MLP_UNITS;      // of the MLP's hidden layer, for one block
constexpr int kStages = VOCAB_STAGES;  // copies of the vocabulary in flight for each warp
static_assert(kD == kHead * HEADS && kD % (16 * kCluster) == 0, "Whisper's heads are 64 wide");

#if WEIGHT_BYTES == 1
using Weight = int8_t;
using Weights8 = uint2;
#else
using Weight = __half;
using Weights8 = uint4;
#endif

// The residual stream in fixed point. 2^-32 is far below half's rounding; 2^31 far above half's range. What isn't
// finite becomes the largest number.
using Fixed = long long;
constexpr float kFixedOne = 4294967296.f;
__device__ __forceinline__ Fixed to_fixed(float value) { return __float2ll_rn(value * kFixedOne); }
__device__ __forceinline__ float to_float(Fixed value) { return __ll2float_rn(value) * (1.f / kFixedOne); }
__device__ __forceinline__ void add(Fixed* to, Fixed value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}

struct Residual {
  const Fixed* in;  // [kQueries][kD]
  Fixed* out;       // zero at first; `in` and what this kernel adds to it
  Fixed* clear;     // the next kernel's `out`
};

__device__ __forceinline__ void unpack(uint4 packed, float (&value)[8]) {
  const __half2* halves = reinterpret_cast<const __half2*>(&packed);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 two = __half22float2(halves[i]);
    value[2 * i] = two.x, value[2 * i + 1] = two.y;
  }
}

// Bytes become the low bits of floats near 2^23: a permutation and a subtraction, where a conversion runs at a
// quarter of the speed (the trick of FasterTransformer's int8 kernels).
__device__ __forceinline__ void unpack(uint32_t packed, float* value) {
  const uint32_t biased = packed ^ 0x80808080u;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    value[i] = __uint_as_float(__byte_perm(biased, 0x4B000000u, 0x7540 + i)) - 8388736.f;
}
__device__ __forceinline__ void unpack(uint2 packed, float (&value)[8]) {
  unpack(packed.x, value);
  unpack(packed.y, value + 4);
}

__host__ __device__ constexpr int power_of_two(int least) { return least <= 1 ? 1 : 2 * power_of_two((least + 1) / 2); }

// One product of a row with a query, in one lane.
struct Product {
  int row, query;  // row == the number of rows: none
  int copy;        // kCopies lanes hold the same product; which of them this is
  float value;
};

template <int kRows>
struct Products {
  static constexpr int kValues = power_of_two(kRows * kQueries), kCopies = 32 / kValues;
  static_assert(1 <= kCopies, "one value a lane");
};

// kRows rows of a matrix in shared memory times every query, by one warp.
template <int kRows>
__device__ __forceinline__ Product rows_times_x(const Weight (*rows)[kD], const float (*x)[kD]) {
  constexpr int kValues = Products<kRows>::kValues, kCopies = Products<kRows>::kCopies;
  const int lane = threadIdx.x % 32;
  float sum[kValues] = {};
#pragma unroll
  for (int first = 0; first < kD; first += 256) {
    const int column = first + lane * 8;
    if (kD % 256 != 0 && column >= kD) break;
    float weight[kRows][8];
#pragma unroll
    for (int r = 0; r < kRows; ++r) unpack(*reinterpret_cast<const Weights8*>(&rows[r][column]), weight[r]);
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      float in[8];
      *reinterpret_cast<float4*>(in) = *reinterpret_cast<const float4*>(&x[q][column]);
      *reinterpret_cast<float4*>(in + 4) = *reinterpret_cast<const float4*>(&x[q][column + 4]);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[r * kQueries + q] = fmaf(weight[r][i], in[i], sum[r * kQueries + q]);
    }
  }
  const int which = lane / kCopies;
  const float value = device::sums_over_warp<kValues>(sum);
  return {min(which / kQueries, kRows), which % kQueries, lane % kCopies, value};
}

// What a block needs for a layer norm.
struct Norm {
  float moments[kWarps][kQueries][2];  // mean, and sum of squared distances from it, of each warp's part
};

constexpr int kPerThread = (kD + kThreads - 1) / kThreads;

// Layer norm of each row of raw[q][i] (column threadIdx.x + i * kThreads) into x. Ends with a barrier.
__device__ __forceinline__ void layer_norm(const float (&raw)[kQueries][kPerThread], const float* scale,
                                           const float* shift, Norm& shared, float (*x)[kD]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // Threads beyond the width have nothing in their last place; all threads of a warp alike.
  const int mine = (kD - warp * 32 + kThreads - 1) / kThreads;
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    float sum = 0.f, squares = 0.f;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
      if (i < mine) sum += raw[q][i];
    const float mean = device::sum_over_lanes<32>(sum) / (32 * max(mine, 1));
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
      if (i < mine) squares += (raw[q][i] - mean) * (raw[q][i] - mean);
    squares = device::sum_over_lanes<32>(squares);
    if (lane == 0) shared.moments[warp][q][0] = mean, shared.moments[warp][q][1] = squares;
  }
  __syncthreads();
  // Merging parts: Chan, Golub and LeVeque 1983, doi 10.1080/00031305.1983.10483115. Eight lanes a query.
  const float share = 32.f * ((kD - lane % kWarps * 32 + kThreads - 1) / kThreads);
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    const float part = shared.moments[lane % kWarps][q][0];
    const float mean = device::sum_over_lanes<kWarps>(part * share) / kD, away = part - mean;
    const float squares = device::sum_over_lanes<kWarps>(shared.moments[lane % kWarps][q][1] + away * away * share);
    const float inverse = rsqrtf(squares / kD + 1e-5f);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int column = threadIdx.x + i * kThreads;
      if (column < kD) x[q][column] = (raw[q][i] - mean) * inverse * scale[column] + shift[column];
    }
  }
  __syncthreads();
}

__device__ __forceinline__ void load_residual(const Fixed* in, float (&raw)[kQueries][kPerThread]) {
  Fixed loaded[kQueries][kPerThread];  // all on their way before the first is needed
#pragma unroll
  for (int q = 0; q < kQueries; ++q)
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
      if (const int column = threadIdx.x + i * kThreads; column < kD) loaded[q][i] = in[q * kD + column];
#pragma unroll
  for (int q = 0; q < kQueries; ++q)
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
      if (threadIdx.x + i * kThreads < kD) raw[q][i] = to_float(loaded[q][i]);
}

// Keep the slice of the residual that this block adds its results to; ordered by the barriers of layer_norm.
__device__ __forceinline__ void keep_slice(const float (&raw)[kQueries][kPerThread], int rank,
                                           float (&carried)[kQueries][kSlice]) {
#pragma unroll
  for (int q = 0; q < kQueries; ++q)
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int column = threadIdx.x + i * kThreads;
      if (column < kD && column / kSlice == rank) carried[q][column % kSlice] = raw[q][i];
    }
}

__device__ __forceinline__ void clear_slice(Fixed* clear, int rank) {
  for (int i = threadIdx.x; i < kQueries * kSlice; i += kThreads)
    clear[i / kSlice * kD + rank * kSlice + i % kSlice] = 0;
}

// The tokens whose logits are wanted, and what the first kernel makes of them.
struct Tokens {
  const int64_t* history;   // ids
  const int64_t* position;  // query q is history[*position + q], at that position
  const __half* embedding;  // [vocabulary][kD]
  const __half* places;     // [positions][kD]
};

__device__ __forceinline__ float embedded(const Tokens& tokens, int64_t first, int q, int column) {
  const int64_t token = tokens.history[first + q];
  return __half2float(tokens.embedding[token * kD + column]) + __half2float(tokens.places[(first + q) * kD + column]);
}

constexpr int bytes_of_tile(int rows) {
  return (rows * kD + kSlice * kHead) * int(sizeof(Weight)) + 2 * (rows + kSlice) * int(sizeof(float));
}

// The weights of one block of a cluster: its rows of the projections into the head, its rows of the one out of it.
template <int kRows>
struct alignas(16) Tile {
  Weight into[kRows][kD];
  Weight out_of[kSlice][kHead];
  float into_bias[kRows], into_scale[kRows];
  float out_bias[kSlice], out_scale[kSlice];
};

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
  alignas(16) float x[kQueries][kD];
  alignas(16) float fresh[3][kQueries][kHead];  // the queries; in the last block, their own keys and values
  alignas(16) float mixed[kQueries][kHead];
  float carried[kQueries][kSlice];
  Partial of_warp[kWarps][kQueries];
  Partial of_block[kCluster][kQueries];
  Norm moments;
  device::CopyBarrier weights, projected, partials;
};

constexpr int kSelfRows = 3 * kHead / kCluster, kCrossRows = kHead / kCluster;
__host__ __device__ constexpr int share(int keys) { return (keys + kCluster - 1) / kCluster; }
using SelfMemory = AttentionMemory<kSelfRows, share(SELF_LENGTH)>;
using CrossMemory = AttentionMemory<kCrossRows, share(CROSS_LENGTH)>;
static_assert(sizeof(Tile<kSelfRows>) == bytes_of_tile(kSelfRows), "packed by the host");
static_assert(sizeof(Tile<kCrossRows>) == bytes_of_tile(kCrossRows), "packed by the host");

struct Attention {
  Residual residual;
  const uint8_t* tiles;    // [HEADS][kCluster] Tile
  const float* norm;       // [2][kD]
  __half* keys;            // [HEADS][length][kHead]
  __half* values;
  int length;
  Tokens tokens;           // embedding: null but for the first layer
};

// A softmax that grows key by key, for one query; 8 of its elements.
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

// Softmax over `count` keys of this block, and with `own` over those of the queries themselves, a query over those
// before it and its own. 8 lanes a key, 8 elements a lane.
template <int kKeys>
__device__ __forceinline__ void attend(const __half (&keys)[kKeys][kHead], const __half (&values)[kKeys][kHead],
                                       int count, bool own, const float (&fresh)[3][kQueries][kHead],
                                       Partial (&of_warp)[kWarps][kQueries]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, column = lane % 8 * 8;
  float query[kQueries][8], key[8], value[8];
  Running running[kQueries];
#pragma unroll
  for (int q = 0; q < kQueries; ++q) load(&fresh[0][q][column], query[q]);
  // All lanes of a warp take part in its shuffles, so its groups go on until the last of them is done.
  for (int base = warp * 4; base < count; base += kThreads / 8) {
    const bool there = base + lane / 8 < count;
    const int k = there ? base + lane / 8 : base;
    unpack(*reinterpret_cast<const uint4*>(&keys[k][column]), key);
    unpack(*reinterpret_cast<const uint4*>(&values[k][column]), value);
#pragma unroll
    for (int q = 0; q < kQueries; ++q)
      running[q].add(device::sum_over_lanes<8>(dot(key, query[q])), value, there);
  }
  for (int base = own ? warp * 4 : kQueries; base < kQueries; base += kThreads / 8) {
    const int k = min(base + lane / 8, kQueries - 1);
    load(&fresh[1][k][column], key);
    load(&fresh[2][k][column], value);
#pragma unroll
    for (int q = 0; q < kQueries; ++q)
      running[q].add(device::sum_over_lanes<8>(dot(key, query[q])), value, base + lane / 8 <= q);
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    float highest = fmaxf(running[q].max, __shfl_xor_sync(kAllLanes, running[q].max, 8));
    highest = fmaxf(highest, __shfl_xor_sync(kAllLanes, highest, 16));
    const float weight = __expf(running[q].max - highest);
    float total = running[q].sum * weight;
    total += __shfl_xor_sync(kAllLanes, total, 8);
    total += __shfl_xor_sync(kAllLanes, total, 16);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float part = running[q].mixed[i] * weight;
      part += __shfl_xor_sync(kAllLanes, part, 8);
      part += __shfl_xor_sync(kAllLanes, part, 16);
      if (lane < 8) of_warp[warp][q].mixed[column + i] = part;
    }
    if (lane == 0) of_warp[warp][q].max = highest, of_warp[warp][q].sum = total;
  }
}

// Four columns of the merged softmax of several parts: its numerator, and by reference the rest.
template <int kParts>
__device__ __forceinline__ float4 merged(const Partial (&parts)[kParts][kQueries], int q, int column, float& max,
                                         float& sum) {
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
  using Memory = typename std::conditional<kCross, CrossMemory, SelfMemory>::type;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  Memory& memory = *reinterpret_cast<Memory*>(raw_memory);
  const int rank = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32;
  const bool is_last = rank == kCluster - 1, is_first_layer = !kCross && args.tokens.embedding != nullptr;
  __half* const keys = args.keys + static_cast<int64_t>(head) * args.length * kHead;
  __half* const values = args.values + static_cast<int64_t>(head) * args.length * kHead;

  int count = max(0, min(share(args.length), args.length - rank * share(args.length)));  // keys for this block
  if (threadIdx.x == 0) {
    memory.weights.init();
    memory.projected.init();
    memory.partials.init();
    const uint32_t vectors = kQueries * kHead * sizeof(float), chunk = kCross ? count * kHead * sizeof(__half) : 0;
    memory.projected.expect(!kCross && is_last ? 3 * vectors : vectors);
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
  auto fetch_cache = [&] {  // the keys before the queries' own, split among the blocks
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
  float raw[kQueries][kPerThread];
  if (is_first_layer) {
#pragma unroll
    for (int q = 0; q < kQueries; ++q)
#pragma unroll
      for (int i = 0; i < kPerThread; ++i)
        if (threadIdx.x + i * kThreads < kD) raw[q][i] = embedded(args.tokens, position, q, threadIdx.x + i * kThreads);
  } else {
    load_residual(args.residual.in, raw);
  }
  if (head == 0) keep_slice(raw, rank, memory.carried);
  if (head == HEADS - 1) clear_slice(args.residual.clear, rank);
  memory.weights.wait(0);
  layer_norm(raw, memory.norm[0], memory.norm[1], memory.moments, memory.x);

  // Projections into the head: queries go to all blocks, new keys and values to the last, and into the cache.
  const Product product = rows_times_x<kRowsPerWarp>(&memory.tile.into[warp * kRowsPerWarp], memory.x);
  if (product.row < kRowsPerWarp) {
    const int mine = warp * kRowsPerWarp + product.row, part = (rank * kRows + mine) / kHead;
    const int column = (rank * kRows + mine) % kHead, q = product.query;
    const float value = product.value * memory.tile.into_scale[mine] + memory.tile.into_bias[mine];
    if (part == 0) {
      for (int to = product.copy; to < kCluster; to += Products<kRowsPerWarp>::kCopies)
        device::send(&memory.fresh[0][q][column], to, value * 0.125f, memory.projected);  // 64^-1/2
    } else if (product.copy == 0) {
      const __half rounded = __float2half_rn(value);
      device::send(&memory.fresh[part][q][column], kCluster - 1, __half2float(rounded), memory.projected);
      if (position + q < args.length) (part == 1 ? keys : values)[(position + q) * kHead + column] = rounded;
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
  for (int i = threadIdx.x; i < kQueries * kCluster * kFours; i += kThreads) {
    const int column = i % kFours * 4, to = i / kFours % kCluster, q = i / kFours / kCluster;
    float max, sum;
    const float4 mixed = merged(memory.of_warp, q, column, max, sum);
    Partial& mine = memory.of_block[rank][q];
    device::send(reinterpret_cast<float4*>(&mine.mixed[column]), to, mixed, memory.partials);
    if (column == 0) device::send(reinterpret_cast<float4*>(&mine.max), to, {max, sum}, memory.partials);
  }
  memory.partials.wait(0);
  for (int i = threadIdx.x; i < kQueries * kFours; i += kThreads) {
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
    unpack(*reinterpret_cast<const Weights8*>(&memory.tile.out_of[row][column]), weight[t]);
  }
  const int turn = lane % 8 / (8 / kValues), row = turn * (kThreads / 8) + warp * 4 + lane / 8;
  const bool adds = lane % (8 / kValues) == 0 && row < kSlice;
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    float mixed[8], sum[kValues] = {};
    load(&memory.mixed[q][column], mixed);
#pragma unroll
    for (int t = 0; t < kTurns; ++t) sum[t] = dot(weight[t], mixed);
    float value = device::sums_over_warp<kValues, 4>(sum);
    if (adds) {
      value *= memory.tile.out_scale[row];
      if (head == 0) value += memory.tile.out_bias[row] + memory.carried[q][row];
      add(&args.residual.out[q * kD + rank * kSlice + row], to_fixed(value));
    }
  }
}

struct alignas(16) MlpTile {
  Weight into[kUnits][kD];
  Weight out_of[kUnits][kD];  // transposed: a row is what a hidden unit adds to the residual
  float into_bias[kUnits], into_scale[kUnits];
  float out_bias[kSlice], out_scale[kSlice];  // of the slice that this block sums up
};

struct alignas(16) MlpMemory {
  MlpTile tile;
  float norm[2][kD];
  alignas(16) float x[kQueries][kD];
  float hidden[kQueries][kUnits];
  float carried[kQueries][kSlice];
  alignas(16) float slices[kCluster][kQueries][kSlice];
  Norm moments;
  device::CopyBarrier weights, summands;
};

struct Mlp {
  Residual residual;
  const uint8_t* tiles;  // [blocks] MlpTile
  const float* norm;     // [2][kD]
};

// kUnits hidden units of the MLP by one block; the blocks of a cluster sum up before they add to the residual.
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads) mlp_block(const Mlp args) {
  constexpr int kRowsPerWarp = kUnits / kWarps;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  MlpMemory& memory = *reinterpret_cast<MlpMemory*>(raw_memory);
  const int warp = threadIdx.x / 32, rank = blockIdx.x % kCluster;
  if (threadIdx.x == 0) {
    memory.weights.init();
    memory.summands.init();
    memory.summands.expect(sizeof(memory.slices));
    memory.weights.expect(sizeof(memory.tile) + sizeof(memory.norm));
    memory.weights.copy(&memory.tile, args.tiles + static_cast<int64_t>(blockIdx.x) * sizeof(MlpTile), sizeof(MlpTile));
    memory.weights.copy(memory.norm, args.norm, sizeof(memory.norm));
  }
  device::cluster_arrive();
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  device::cluster_wait();
  float raw[kQueries][kPerThread];
  load_residual(args.residual.in, raw);
  if (blockIdx.x < kCluster) keep_slice(raw, rank, memory.carried);
  if (blockIdx.x >= gridDim.x - kCluster) clear_slice(args.residual.clear, rank);
  memory.weights.wait(0);
  layer_norm(raw, memory.norm[0], memory.norm[1], memory.moments, memory.x);

  const Product product = rows_times_x<kRowsPerWarp>(&memory.tile.into[warp * kRowsPerWarp], memory.x);
  if (product.row < kRowsPerWarp && product.copy == 0) {
    const int unit = warp * kRowsPerWarp + product.row;
    const float value = product.value * memory.tile.into_scale[unit] + memory.tile.into_bias[unit];
    memory.hidden[product.query][unit] = 0.5f * value * (1.f + erff(value * 0.70710678f));  // GELU
  }
  __syncthreads();
  // Four columns a thread: what the units add to the residual goes to the block that owns the columns.
  for (int column = threadIdx.x * 4; column < kD; column += kThreads * 4) {
    float out[kQueries][4] = {};
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) {
      float weight[4];
#if WEIGHT_BYTES == 1
      unpack(*reinterpret_cast<const uint32_t*>(&memory.tile.out_of[unit][column]), weight);
#else
      const uint2 packed = *reinterpret_cast<const uint2*>(&memory.tile.out_of[unit][column]);
      const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&packed.x));
      const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&packed.y));
      weight[0] = low.x, weight[1] = low.y, weight[2] = high.x, weight[3] = high.y;
#endif
#pragma unroll
      for (int q = 0; q < kQueries; ++q)
#pragma unroll
        for (int i = 0; i < 4; ++i) out[q][i] = fmaf(weight[i], memory.hidden[q][unit], out[q][i]);
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q)
      device::send(reinterpret_cast<float4*>(&memory.slices[rank][q][column % kSlice]), column / kSlice,
                   {out[q][0], out[q][1], out[q][2], out[q][3]}, memory.summands);
  }
  memory.summands.wait(0);
  for (int i = threadIdx.x; i < kQueries * kSlice; i += kThreads) {
    const int q = i / kSlice, column = i % kSlice;
    float value = 0.f;
#pragma unroll
    for (int from = 0; from < kCluster; ++from) value += memory.slices[from][q][column];
    value *= memory.tile.out_scale[column];
    if (blockIdx.x < kCluster) value += memory.tile.out_bias[column] + memory.carried[q][column];
    add(&args.residual.out[q * kD + rank * kSlice + column], to_fixed(value));
  }
}

// Rows of the vocabulary that a warp takes at a time; no more than give one value a lane.
constexpr int kVocabRows = kQueries <= 4 ? 4 : 2;

struct alignas(16) VocabularyMemory {
  Weight rows[kWarps][kStages][kVocabRows][kD];
  float norm[2][kD];
  alignas(16) float x[kQueries][kD];
  alignas(16) float scale[kWarps][kStages][4];
  Norm moments;
  device::CopyBarrier norm_barrier;
  device::CopyBarrier barrier[kWarps][kStages];
};

struct Vocabulary {
  const Fixed* in;     // the residual after the last layer
  const Weight* rows;  // [size][kD]
  const float* scale;  // [size, and more to a multiple of 4]; not read for half
  const float* norm;   // [2][kD]
  float* logits;       // [kQueries][size]
  int size;
};

// Logits of all tokens: warps take turns at kVocabRows rows, each with kStages copies of its own under way.
__global__ void __launch_bounds__(kThreads) vocabulary(const Vocabulary args) {
  constexpr bool kScaled = sizeof(Weight) == 1;
  extern __shared__ __align__(128) uint8_t raw_memory[];
  VocabularyMemory& memory = *reinterpret_cast<VocabularyMemory*>(raw_memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int pieces = (args.size + kVocabRows - 1) / kVocabRows, turns = gridDim.x * kWarps;
  const int begin = warp * gridDim.x + blockIdx.x;
  auto fetch = [&](int piece, int stage) {
    if (piece >= pieces) return;
    const int first = piece * kVocabRows;
    const uint32_t bytes = min(kVocabRows, args.size - first) * kD * sizeof(Weight);
    device::CopyBarrier& barrier = memory.barrier[warp][stage];
    barrier.expect(bytes + (kScaled ? 16 : 0));
    barrier.copy(memory.rows[warp][stage], args.rows + static_cast<int64_t>(first) * kD, bytes);
    if (kScaled) barrier.copy(memory.scale[warp][stage], args.scale + first / 4 * 4, 16);
  };
  if (threadIdx.x == 0) {
    memory.norm_barrier.init();
    memory.norm_barrier.expect(sizeof(memory.norm));
    memory.norm_barrier.copy(memory.norm, args.norm, sizeof(memory.norm));
  }
  if (lane == 0) {
    for (int stage = 0; stage < kStages; ++stage) memory.barrier[warp][stage].init();
    for (int stage = 0; stage < kStages; ++stage) fetch(begin + stage * turns, stage);
  }
  device::wait_for_previous_kernel();
  device::let_next_kernel_begin();
  float raw[kQueries][kPerThread];
  load_residual(args.in, raw);
  __syncthreads();
  memory.norm_barrier.wait(0);
  layer_norm(raw, memory.norm[0], memory.norm[1], memory.moments, memory.x);
  int stage = 0, phase = 0;
  for (int piece = begin; piece < pieces; piece += turns) {
    memory.barrier[warp][stage].wait(phase);
    const Product product = rows_times_x<kVocabRows>(memory.rows[warp][stage], memory.x);
    const int row = piece * kVocabRows + product.row;
    const float scale = kScaled ? memory.scale[warp][stage][row % 4] : 1.f;
    __syncwarp();
    if (lane == 0) fetch(piece + kStages * turns, stage);
    if (product.copy == 0 && product.row < kVocabRows && row < args.size)
      args.logits[static_cast<int64_t>(product.query) * args.size + row] = product.value * scale;
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
}

template <typename Arguments>
cudaError_t launch(void (*kernel)(Arguments), dim3 grid, size_t memory, const Arguments& arguments, bool overlap,
                   cudaStream_t stream) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = overlap;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = memory;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, arguments);
}

// Everything that a step reads and writes; mirrored in decoder_step.py.
struct Step {
  int32_t layers, blocks_of_mlp, blocks_of_vocabulary, size_of_vocabulary, overlap;
  const uint8_t *self_tiles, *cross_tiles, *mlp_tiles;  // [layers][...]
  const float* norms;                                  // [3 * layers + 1][2][kD]: in the order of their use
  __half *self_cache, *cross_cache;                    // [layers][2][HEADS][length][kHead]
  const int64_t *history, *position;
  const __half *embedding, *places;
  const Weight* vocabulary;
  const float* vocabulary_scale;
  Fixed* residual;                                     // [3][kQueries][kD]; zero before the first step
  float* logits;
};

extern "C" int decoder_step_size(int which) {
  const size_t sizes[] = {sizeof(Tile<kSelfRows>), sizeof(Tile<kCrossRows>), sizeof(MlpTile), sizeof(Step)};
  return static_cast<int>(sizes[which]);
}

extern "C" int decoder_step_prepare() {
  auto allow = [](const void* kernel, size_t bytes) {
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  };
  if (cudaError_t error = allow(reinterpret_cast<const void*>(attention_block<false>), sizeof(SelfMemory))) return error;
  if (cudaError_t error = allow(reinterpret_cast<const void*>(attention_block<true>), sizeof(CrossMemory))) return error;
  if (cudaError_t error = allow(reinterpret_cast<const void*>(mlp_block), sizeof(MlpMemory))) return error;
  return allow(reinterpret_cast<const void*>(vocabulary), sizeof(VocabularyMemory));
}

extern "C" int decoder_step(const Step* step, cudaStream_t stream) {
  const size_t row = kQueries * kD, cache = static_cast<size_t>(HEADS) * kHead;
  const dim3 heads(kCluster, HEADS);
  int turn = 0;  // of the three buffers of the residual
  auto next = [&] {
    Residual r{step->residual + turn % 3 * row, step->residual + (turn + 1) % 3 * row, step->residual + (turn + 2) % 3 * row};
    ++turn;
    return r;
  };
  for (int layer = 0; layer < step->layers; ++layer) {
    const float* norm = step->norms + layer * 3 * 2 * kD;
    const Tokens tokens{step->history, step->position, layer == 0 ? step->embedding : nullptr, step->places};
    __half* own = step->self_cache + layer * 2 * cache * SELF_LENGTH;
    __half* cross = step->cross_cache + layer * 2 * cache * CROSS_LENGTH;
    const Attention self{next(), step->self_tiles + layer * HEADS * kCluster * sizeof(Tile<kSelfRows>), norm, own,
                         own + cache * SELF_LENGTH, SELF_LENGTH, tokens};
    if (cudaError_t error = launch(attention_block<false>, heads, sizeof(SelfMemory), self, step->overlap, stream)) return error;
    const Attention other{next(), step->cross_tiles + layer * HEADS * kCluster * sizeof(Tile<kCrossRows>), norm + 2 * kD,
                          cross, cross + cache * CROSS_LENGTH, CROSS_LENGTH, {}};
    if (cudaError_t error = launch(attention_block<true>, heads, sizeof(CrossMemory), other, step->overlap, stream)) return error;
    const Mlp mlp{next(), step->mlp_tiles + static_cast<size_t>(layer) * step->blocks_of_mlp * sizeof(MlpTile), norm + 4 * kD};
    if (cudaError_t error = launch(mlp_block, dim3(step->blocks_of_mlp), sizeof(MlpMemory), mlp, step->overlap, stream)) return error;
  }
  const Vocabulary last{step->residual, step->vocabulary, step->vocabulary_scale, step->norms + step->layers * 3 * 2 * kD,
                        step->logits, step->size_of_vocabulary};
  return launch(vocabulary, dim3(step->blocks_of_vocabulary), sizeof(VocabularyMemory), last, step->overlap, stream);
}
