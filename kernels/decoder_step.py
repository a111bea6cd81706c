"""One decode step of Whisper at batch 1 as 3 kernels a layer and one for the vocabulary: see decoder_step.cu.

The weights are packed once: what a block of threads needs lies in one piece, which one bulk copy fetches.
The reference is experiments.static_decoder.StaticDecoder, whose caches the kernels read and write.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from harness.errors import ExitCode, UserError
from kernels import build
from kernels.checks import expect

SOURCE = Path(__file__).with_suffix(".cu")
HEAD = 64
CLUSTER = 8  # blocks that share a head, the largest cluster that every Hopper GPU runs
MAX_QUERIES = 8
SHARED_BYTES = 227 * 1024  # that a block can have on Hopper
_WARPS = 8
_WEIGHTS = (
    *("self_tiles", "cross_tiles", "mlp_tiles", "norms"),
    *("token_embedding", "position_embedding", "vocabulary", "vocabulary_scale"),
)


@dataclass(frozen=True)
class Matrix:
    """A linear layer y = (data @ x) * scale + bias.

    data [N, K] float16 or int8; scale float32 [N], one per row; bias float32 [N].
    """

    data: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> Matrix:
        """That of a layer that isn't quantised."""
        rows = weight.new_ones(len(weight), dtype=torch.float32)
        return cls(weight, rows, torch.zeros_like(rows) if bias is None else bias.float())

    def first(self, rows: int) -> Matrix:
        return Matrix(self.data[:rows], self.scale[:rows], self.bias[:rows])


@dataclass(frozen=True)
class Layer:
    """The matrices of a decoder layer: qkv [3D, D] (query, key, value), query [D, D], outputs [D, D], MLP
    [F, D] and [D, F]; norms float32 [3, 2, D]: scale and shift of self-attention, cross-attention and MLP."""

    qkv: Matrix
    self_out: Matrix
    query: Matrix
    cross_out: Matrix
    mlp_in: Matrix
    mlp_out: Matrix
    norms: torch.Tensor


@dataclass(frozen=True)
class Weights:
    """Everything of a decoder that a step reads; see `pack`. All on one device, contiguous."""

    shape: dict[str, int]
    self_tiles: torch.Tensor
    cross_tiles: torch.Tensor
    mlp_tiles: torch.Tensor
    norms: torch.Tensor
    vocabulary: torch.Tensor
    vocabulary_scale: torch.Tensor
    token_embedding: torch.Tensor
    position_embedding: torch.Tensor


def obstacle(width: int, heads: int, mlp: int) -> str | None:
    """Why the kernels can't compute a decoder of this shape, or None if they can."""
    if width != HEAD * heads:
        return f"heads of {width // heads} elements (the kernels take {HEAD}, as every Whisper has)"
    if width % (16 * CLUSTER):
        return f"a width of {width} (the kernels take multiples of {16 * CLUSTER})"
    if mlp % _WARPS:
        return f"an MLP of {mlp} units (the kernels take multiples of {_WARPS})"
    return None


def pack(
    layers: list[Layer],
    vocabulary: Matrix,
    last_norm: torch.Tensor,
    token_embedding: torch.Tensor,
    position_embedding: torch.Tensor,
    multiprocessors: int,
) -> Weights:
    """Arrange a decoder's weights for the kernels, on their device.

    vocabulary [V, D] without a bias; last_norm float32 [2, D]; token_embedding [V, D] and position_embedding
    [P, D] float16.
    """
    mlp, width = layers[0].mlp_in.data.shape
    units = _units(mlp, width, layers[0].qkv.data.element_size(), multiprocessors)
    norms = torch.cat([layer.norms.flatten(0, 1) for layer in layers] + [last_norm]).contiguous()
    return Weights(
        shape={
            "D_MODEL": width,
            "HEADS": width // HEAD,
            "CLUSTER": CLUSTER,
            "MLP_UNITS": units,
            "WEIGHT_BYTES": layers[0].qkv.data.element_size(),
        },
        self_tiles=torch.stack([_attention_tiles(layer.qkv, layer.self_out) for layer in layers]),
        cross_tiles=torch.stack([_attention_tiles(layer.query, layer.cross_out) for layer in layers]),
        mlp_tiles=torch.stack([_mlp_tiles(layer.mlp_in, layer.mlp_out, units) for layer in layers]),
        norms=norms,
        vocabulary=vocabulary.data.contiguous(),
        vocabulary_scale=F.pad(vocabulary.scale, (0, -len(vocabulary.scale) % 4)),
        token_embedding=token_embedding.contiguous(),
        position_embedding=position_embedding.contiguous(),
    )


def _units(mlp: int, width: int, element_bytes: int, multiprocessors: int) -> int:
    """Hidden units for a block: a multiple of the warps, about a block per multiprocessor, and no more than
    MAX_QUERIES leave room for: in shared memory (struct MlpMemory, or more), and with one sum a thread."""
    blocks = max(multiprocessors // CLUSTER, 1) * CLUSTER
    part = width // CLUSTER
    fixed = 8 * part + 8 * width + MAX_QUERIES * (8 * width + 4 * part + 8 * _WARPS) + 64
    room = (SHARED_BYTES - fixed) // (_WARPS * (2 * width * element_bytes + 8 + 4 * MAX_QUERIES))
    return _WARPS * min(-(-mlp // (blocks * _WARPS)), 32 // MAX_QUERIES, room)


def _stages(width: int, queries: int, element_bytes: int) -> int:
    """Copies of the vocabulary's rows in flight, in as much shared memory as the last MLP leaves, beside
    which they begin: of 4 rows for every warp, or for several queries of 16 rows, 32 elements apart, for a
    block."""
    rows, gap, room = (4 * _WARPS, 0, 120) if queries == 1 else (16, 32, 120 if queries <= 4 else 80)
    return max(2, room * 1024 // (rows * (width + gap) * element_bytes))


def _attention_tiles(into: Matrix, out: Matrix) -> torch.Tensor:
    """uint8 [heads, CLUSTER, bytes]: struct Tile of decoder_step/layout.cuh for every block."""
    width = into.data.shape[1]
    heads, parts = width // HEAD, len(into.data) // width

    def rows(of: torch.Tensor) -> torch.Tensor:  # [parts * D, ...] -> [heads, CLUSTER, rows of a block, ...]
        by_head = of.view(parts, heads, HEAD, *of.shape[1:]).transpose(0, 1)
        return by_head.reshape(heads, CLUSTER, parts * HEAD // CLUSTER, *of.shape[1:])

    def slices(of: torch.Tensor) -> torch.Tensor:  # [D] -> [heads, CLUSTER, D / CLUSTER]
        return of.view(1, CLUSTER, -1).expand(heads, -1, -1)

    columns = out.data.view(CLUSTER, -1, heads, HEAD).permute(2, 0, 1, 3)
    fields = (
        rows(into.data),
        columns,
        rows(into.bias),
        rows(into.scale),
        slices(out.bias),
        slices(out.scale),
    )
    return torch.cat([_as_bytes(field) for field in fields], -1).contiguous()


def _mlp_tiles(into: Matrix, out: Matrix, units: int) -> torch.Tensor:
    """uint8 [blocks, bytes]: struct MlpTile of decoder_step/layout.cuh for every block; units that fill up
    the last cluster are zero."""
    missing = -len(into.data) % (units * CLUSTER)

    def filled(of: torch.Tensor) -> torch.Tensor:
        padded = F.pad(of, (0, 0, 0, missing) if of.dim() == 2 else (0, missing))
        return padded.view(-1, units, *of.shape[1:])

    def slices(of: torch.Tensor) -> torch.Tensor:
        return of.view(CLUSTER, -1).repeat((len(into.data) + missing) // (units * CLUSTER), 1)

    rows = [filled(field) for field in (into.data, out.data.T, into.bias, into.scale)]
    return torch.cat([_as_bytes(f, 1) for f in (*rows, slices(out.bias), slices(out.scale))], -1).contiguous()


def _as_bytes(field: torch.Tensor, leading: int = 2) -> torch.Tensor:
    """[*leading, ...] -> uint8 [*leading, bytes]."""
    return field.contiguous().flatten(leading).view(torch.uint8)


class _Step(ctypes.Structure):
    """struct Step of decoder_step.cu."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "blocks_of_mlp", "blocks_of_vocabulary")),
        *((name, ctypes.c_int32) for name in ("size_of_vocabulary", "overlap")),
        *((name, ctypes.c_void_p) for name in ("self_tiles", "cross_tiles", "mlp_tiles", "norms")),
        *((name, ctypes.c_void_p) for name in ("self_cache", "cross_cache", "history", "position")),
        *((name, ctypes.c_void_p) for name in ("token_embedding", "position_embedding")),
        *((name, ctypes.c_void_p) for name in ("vocabulary", "vocabulary_scale")),
        *((name, ctypes.c_void_p) for name in ("residual", "logits")),
    )


class DecoderStep:
    """Logits of `queries` tokens that follow each other, one row; its buffers are allocated here, once.

    self_cache [L, 2, 1, H, T, 64] and cross_cache [L, 2, 1, H, S, 64] float16, read and written in place.
    overlap: launch kernels while the ones before them still run (programmatic dependent launch). Raises
    UserError without nvcc.
    """

    def __init__(
        self,
        weights: Weights,
        self_cache: torch.Tensor,
        cross_cache: torch.Tensor,
        queries: int = 1,
        overlap: bool = True,
    ) -> None:
        width, size = weights.shape["D_MODEL"], len(weights.vocabulary)
        device = weights.norms.device
        defines = weights.shape | {
            "QUERIES": queries,
            "SELF_LENGTH": self_cache.shape[4],
            "CROSS_LENGTH": cross_cache.shape[4],
            "VOCAB_STAGES": _stages(width, queries, weights.shape["WEIGHT_BYTES"]),
        }
        self._library = build.library(SOURCE, defines, least=90)
        self._check_layout(weights)
        if code := self._library.decoder_step_prepare():
            raise UserError(
                f"decoder=fused needs more shared memory than this GPU gives a block, for a decoder of width "
                f"{width} and {queries} queries (CUDA error {code})",
                "decoder=static, or quantize=int8",
                ExitCode.MACHINE,
            )
        residual = torch.zeros(3, queries, width, dtype=torch.int64, device=device)
        self.logits = torch.zeros(queries, size, dtype=torch.float32, device=device)
        self._kept = weights, self_cache, cross_cache, residual
        self._queries, self._length = queries, self_cache.shape[4]
        pointers = {name: getattr(weights, name) for name in _WEIGHTS} | {
            "self_cache": self_cache,
            "cross_cache": cross_cache,
            "residual": residual,
            "logits": self.logits,
        }
        self._step = _Step(
            layers=len(weights.self_tiles),
            blocks_of_mlp=weights.mlp_tiles.shape[1],
            blocks_of_vocabulary=torch.cuda.get_device_properties(device).multi_processor_count,
            size_of_vocabulary=size,
            overlap=overlap,
            **{name: tensor.data_ptr() for name, tensor in pointers.items()},
        )

    def _check_layout(self, weights: Weights) -> None:
        """The host packs what the kernels read as structs: both have to mean the same bytes."""
        packed = [t.shape[-1] for t in (weights.self_tiles, weights.cross_tiles, weights.mlp_tiles)]
        read = [self._library.decoder_step_size(which) for which in range(4)]
        if read != [*packed, ctypes.sizeof(_Step)]:
            raise RuntimeError(f"the kernels read {read} bytes where the host packed {packed}")

    def __call__(self, history: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Queue the kernels on the current stream. history: int64 [1, T], token ids; places: int64
        [1, queries], where in it the tokens stand, one after the other (only the first is read).

        Returns float32 [queries, V]: the same tensor each time, which the next call overwrites.
        """
        expect("history", history, self.logits, torch.int64, 1, self._length)
        expect("places", places, self.logits, torch.int64, 1, self._queries)
        self._step.history, self._step.position = history.data_ptr(), places.data_ptr()
        with torch.cuda.device(self.logits.device):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            build.check(self._library.decoder_step(ctypes.byref(self._step), stream), "a decode step")
        return self.logits
