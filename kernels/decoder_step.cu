// One decode step of Whisper at batch 1 in 3 kernels a layer: self-attention, cross-attention, MLP; then the
// vocabulary. Compiled for the shapes of one checkpoint (D_MODEL, HEADS, MLP_UNITS, ...) and a number of QUERIES.
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
// Sums of products are float, whatever the type of the weights. One query is multiplied by plain instructions
// (decoder_step/one_*.cuh), several by tensor cores (decoder_step/several_*.cuh).
#if QUERIES == 1
#include "decoder_step/one_attention.cuh"
#include "decoder_step/one_mlp.cuh"
#include "decoder_step/one_vocabulary.cuh"
#else
#include "decoder_step/several_attention.cuh"
#include "decoder_step/several_mlp.cuh"
#include "decoder_step/several_vocabulary.cuh"
#endif

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
  const __half *token_embedding, *position_embedding;
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
    const Tokens tokens{step->history, step->position, layer == 0 ? step->token_embedding : nullptr,
                        step->position_embedding};
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
