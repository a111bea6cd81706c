"""The fused decode step gives the logits of the decoder that it replaces."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from experiments import quantize
from experiments.static_decoder import StaticDecoder
from harness.errors import UserError
from kernels import decoder_step
from kernels.decoder_step import CLUSTER, HEAD, DecoderStep, Layer, Matrix
from tests.kernels.emulator import emulated
from tests.kernels.emulator.compiling import missing

needs_gxx = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SMALL = {"d_model": 768, "heads": 12, "mlp": 3072, "vocabulary": 51865, "layers": 3}
BUNDLED = {"d_model": 256, "heads": 4, "mlp": 352, "vocabulary": 2790, "layers": 4}
TINY = {"d_model": 384, "heads": 6, "mlp": 1536, "vocabulary": 1001, "layers": 2}
LARGE = {"d_model": 1280, "heads": 20, "mlp": 5120, "vocabulary": 1001, "layers": 1}


def matrix(rows: int, columns: int, dtype: torch.dtype = torch.float16) -> Matrix:
    data = torch.randint(-127, 128, (rows, columns)).to(dtype)
    return Matrix(data, torch.rand(rows) + 0.5, torch.randn(rows))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
@pytest.mark.parametrize("width, mlp", [(256, 352), (768, 3072)])
def test_every_block_finds_its_weights(width: int, mlp: int, dtype: torch.dtype) -> None:
    heads, element = width // HEAD, dtype.itemsize
    layer = Layer(
        qkv=matrix(3 * width, width, dtype),
        self_out=matrix(width, width, dtype),
        query=matrix(width, width, dtype),
        cross_out=matrix(width, width, dtype),
        mlp_in=matrix(mlp, width, dtype),
        mlp_out=matrix(width, mlp, dtype),
        norms=torch.randn(3, 2, width),
    )
    vocabulary = matrix(50, width, dtype)
    half = torch.zeros(50, width, dtype=torch.float16)
    packed = decoder_step.pack([layer], vocabulary, torch.randn(2, width), half, half, multiprocessors=132)

    head, rank, rows, part = heads - 1, 5, 3 * HEAD // CLUSTER, width // CLUSTER
    tile = packed.self_tiles[0, head, rank]
    weights = tile[: rows * width * element].view(dtype).view(rows, width)
    for row in (0, rows - 1):
        at = rank * rows + row  # among the head's 192 rows of query, key and value
        source = at // HEAD * width + head * HEAD + at % HEAD
        assert torch.equal(weights[row], layer.qkv.data[source])
    out = tile[rows * width * element :][: part * HEAD * element].view(dtype).view(part, HEAD)
    columns = slice(head * HEAD, (head + 1) * HEAD)
    assert torch.equal(out, layer.self_out.data[rank * part : (rank + 1) * part, columns])
    vectors = tile[(rows * width + part * HEAD) * element :].view(torch.float32)
    assert torch.equal(vectors[-2 * part : -part], layer.self_out.bias[rank * part : (rank + 1) * part])
    assert torch.equal(vectors[-part:], layer.self_out.scale[rank * part : (rank + 1) * part])

    units, block = packed.shape["MLP_UNITS"], mlp // packed.shape["MLP_UNITS"] - 1
    assert packed.mlp_tiles.shape[1] % CLUSTER == 0 and units % 8 == 0
    tile = packed.mlp_tiles[0, block]
    into, out = tile[: 2 * units * width * element].view(dtype).view(2, units, width)
    mine = slice(block * units, (block + 1) * units)
    assert torch.equal(into, layer.mlp_in.data[mine])
    assert torch.equal(out, layer.mlp_out.data[:, mine].T)
    filling = packed.mlp_tiles[0, block + 1 :, : 2 * units * width * element]
    assert not filling.any(), "blocks beyond the MLP add nothing"


@pytest.mark.parametrize(
    "shape, named",
    [((64, 2, 256), "heads of 32"), ((320, 5, 1280), "a width of 320"), ((256, 4, 350), "350 units")],
)
def test_what_the_kernels_cannot_do_has_a_reason(shape: tuple[int, int, int], named: str) -> None:
    assert named in (decoder_step.obstacle(*shape) or "")


@pytest.mark.parametrize("multiprocessors", [7, 16, 78, 114, 132])
@pytest.mark.parametrize("element_bytes", [1, 2])
def test_a_block_has_no_more_units_than_threads_for_them(multiprocessors: int, element_bytes: int) -> None:
    for width, heads in [(384, 6), (512, 8), (768, 12), (1024, 16), (1280, 20)]:
        assert decoder_step.obstacle(width, heads, 4 * width) is None
        units = decoder_step._units(4 * width, width, element_bytes, multiprocessors)
        assert units % 8 == 0 and 8 <= units <= 32, "a thread has one sum, of a query and a unit"


def step_of_width(width: int, dtype: torch.dtype, queries: int) -> DecoderStep:
    """A step of one layer in the emulator, with caches of Whisper's sizes. Of few multiprocessors: then a
    block has the most hidden units."""
    layer = Layer(
        qkv=zeros(3 * width, width, dtype),
        self_out=zeros(width, width, dtype),
        query=zeros(width, width, dtype),
        cross_out=zeros(width, width, dtype),
        mlp_in=zeros(4 * width, width, dtype),
        mlp_out=zeros(width, 4 * width, dtype),
        norms=torch.zeros(3, 2, width),
    )
    half = torch.zeros(8, width, dtype=torch.float16)
    caches = (torch.zeros(1, 2, 1, width // HEAD, length, HEAD) for length in (448, 1500))
    with emulated(multiprocessors=7):
        weights = decoder_step.pack([layer], zeros(8, width, dtype), torch.zeros(2, width), half, half, 7)
        return DecoderStep(weights, *caches, queries)


def zeros(rows: int, columns: int, dtype: torch.dtype) -> Matrix:
    return Matrix(torch.zeros(rows, columns, dtype=dtype), torch.zeros(rows), torch.zeros(rows))


@needs_gxx
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
@pytest.mark.parametrize("queries", [1, 8])
@pytest.mark.parametrize("width", [384, 512, 768, 1024, 1280])
def test_every_size_of_whisper_fits_into_a_block(width: int, queries: int, dtype: torch.dtype) -> None:
    """All kernels of a step, by the sizes of what they have in shared memory."""
    step_of_width(width, dtype, queries)


@needs_gxx
def test_a_step_that_does_not_fit_into_a_block_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fitting = decoder_step._stages(384, 8, 2)
    monkeypatch.setattr(decoder_step, "_stages", lambda *_: 3 * fitting)
    with pytest.raises(UserError, match="more shared memory than this GPU gives"):
        step_of_width(384, torch.float16, 8)


class Pair:
    """A decoder of random weights, in torch in float16 and float32 and as kernels, that heard the same."""

    LENGTH, HEARD = 64, 1500  # of the caches
    DEVICE = "cuda"

    def __init__(self, shape: dict[str, int], how: str = "none") -> None:
        from experiments.fused_decoder import FusedDecoder

        torch.manual_seed(0)
        config = WhisperConfig(
            vocab_size=shape["vocabulary"],
            d_model=shape["d_model"],
            encoder_layers=1,
            decoder_layers=shape["layers"],
            encoder_attention_heads=shape["heads"],
            decoder_attention_heads=shape["heads"],
            decoder_ffn_dim=shape["mlp"],
            max_source_positions=self.HEARD,
            init_std=0.08,
            **{f"{name}_token_id": 3 for name in ("pad", "bos", "eos", "decoder_start")},
        )
        model = WhisperForConditionalGeneration(config).get_decoder().to(self.DEVICE).half().eval()
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # ones and zeros would hide a mistake
                parameter.data += 0.2 * torch.randn_like(parameter)
        self.half = StaticDecoder(model, "eager", 1, self.LENGTH)
        own = StaticDecoder(model, "eager", 1, self.LENGTH)  # whose cache the kernels alone write
        for decoder in (self.half, own):
            quantize.apply(decoder, how, self.DEVICE)
        self.fused, self.caches = FusedDecoder(own), (own.own_cache, own.cross_cache)
        self.exact = StaticDecoder(copy.deepcopy(model).float(), "eager", 1, self.LENGTH)
        for name, module in self.half.named_modules():
            if isinstance(module, quantize.Int8Linear):
                weight = module.qdata.float() * module.scale.float()
                self.exact.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)
        encoded = torch.randn(1, self.HEARD, shape["d_model"], device=self.DEVICE)
        for heard in (self.half, self.fused):
            heard.begin_window(encoded.half())
        self.exact.begin_window(encoded)
        self.history = torch.randint(shape["vocabulary"], (1, self.LENGTH), device=self.DEVICE)

    def places(self, first: int, queries: int) -> torch.Tensor:
        return torch.arange(first, first + queries, device=self.DEVICE)[None]


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.fixture(scope="module")
def pair() -> Callable[..., Pair]:
    made: dict[str, Pair] = {}

    def make(shape: dict[str, int], how: str = "none") -> Pair:
        return made.setdefault(f"{shape} {how}", Pair(shape, how))

    return make


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [SMALL, BUNDLED, TINY, LARGE], ids=["small", "bundled", "tiny", "large"])
@torch.inference_mode()
def test_it_is_as_exact_as_torch_in_half(shape: dict[str, int], pair: Callable[..., Pair]) -> None:
    both = pair(shape)
    for first in range(Pair.LENGTH - 8):
        place = both.places(first, 1)
        exact = both.exact.logits(both.history, place)
        half = both.half.logits(both.history, place)
        fused = both.fused.logits(both.history, place)
        assert error(fused, exact) < max(1.2 * error(half, exact), 1e-3), first


@pytest.mark.gpu
@pytest.mark.parametrize("queries", range(2, 9))
@pytest.mark.parametrize(
    "shape, how",
    [(SMALL, "none"), (BUNDLED, "none"), (TINY, "none"), (SMALL, "int8"), (BUNDLED, "int8")],
    ids=["small", "bundled", "tiny", "small int8", "bundled int8"],
)
@torch.inference_mode()
def test_several_queries_give_what_one_after_the_other_gives(
    shape: dict[str, int], how: str, queries: int, pair: Callable[..., Pair]
) -> None:
    """But for some keys and values that sums in another order round to the neighbouring half: 1.2e-4 was
    seen on an H200, where float16 itself is off by 2e-3."""
    both = pair(shape, how)
    for first in (0, 1, 7, 30, Pair.LENGTH - queries):
        for place in range(first):  # what stands before them
            both.fused.logits(both.history, both.places(place, 1))
        single = [both.fused.logits(both.history, both.places(first + q, 1)).clone() for q in range(queries)]
        together = both.fused.logits(both.history, both.places(first, queries))
        assert error(together, torch.cat(single)) < 3e-4


@pytest.mark.gpu
@pytest.mark.parametrize("queries", [2, 5, 8])
@torch.inference_mode()
def test_what_a_query_gives_does_not_depend_on_those_after_it(
    queries: int, pair: Callable[..., Pair]
) -> None:
    """To the last bit: a draft that is refused leaves no trace."""
    both = pair(SMALL)
    places, other = both.places(20, queries), both.history.clone()
    other[0, 20 + queries - 1] += 1 if other[0, 20 + queries - 1] == 0 else -1
    expected = both.fused.logits(both.history, places).clone()
    found = both.fused.logits(other, places)
    assert torch.equal(found[:-1], expected[:-1])
    assert not torch.equal(found[-1], expected[-1])


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [SMALL, BUNDLED], ids=["small", "bundled"])
@torch.inference_mode()
def test_int8_weights_are_read_as_they_are(shape: dict[str, int], pair: Callable[..., Pair]) -> None:
    both = pair(shape, "int8")
    for first in range(0, 40):
        place = both.places(first, 1)
        exact = both.exact.logits(both.history, place)  # in float32 from the same int8 weights
        half = both.half.logits(both.history, place)  # by the int8 GEMV
        fused = both.fused.logits(both.history, place)
        assert error(fused, exact) < max(1.2 * error(half, exact), 1e-3), first


@pytest.mark.gpu
@torch.inference_mode()
def test_the_same_bits_every_time(pair: Callable[..., Pair], graphs: list[object]) -> None:
    """Heads add to the residual in any order; captured, replayed and with other work beside it."""
    both = pair(SMALL)
    for queries in (1, 4, 8):
        places = both.places(20, queries)
        expected = both.fused.logits(both.history, places).clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = both.fused.logits(both.history, places)
        graphs.append(graph)
        noise = torch.randn(4096, 4096, device="cuda")
        beside = torch.cuda.Stream()
        differ = torch.zeros((), dtype=torch.long, device="cuda")
        for _ in range(300):
            with torch.cuda.stream(beside):
                noise @ noise
            logits.fill_(torch.nan)
            graph.replay()
            differ += (logits != expected).sum()
        assert differ.item() == 0


@pytest.mark.gpu
@torch.inference_mode()
def test_without_overlap_the_same_bits(pair: Callable[..., Pair]) -> None:
    both = pair(SMALL)
    places = both.places(20, 1)
    expected = both.fused.logits(both.history, places).clone()
    alone = decoder_step.DecoderStep(both.fused._weights, *both.caches, overlap=False)
    assert torch.equal(alone(both.history, places), expected)


@pytest.mark.gpu
@torch.inference_mode()
def test_a_loop_on_the_device_runs_until_its_flag_falls(graphs: list[object]) -> None:
    from kernels.while_graph import WhileGraph

    running = torch.zeros(1, dtype=torch.int32, device="cuda")
    count, limit = torch.zeros(2, 1, dtype=torch.int32, device="cuda")
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        count += 1
        running.copy_(count < limit)
    graphs.append(graph)
    loop = WhileGraph(graph, running)
    for wanted in (1, 2, 100, 1000):
        count.zero_(), limit.fill_(wanted), running.fill_(1)
        loop.launch()
        assert count.item() == wanted
    count.zero_(), running.zero_()
    loop.launch()
    assert count.item() == 0, "nothing runs when nothing is to be done"


def test_a_loop_needs_a_flag_that_the_device_can_read() -> None:
    from kernels.while_graph import WhileGraph

    with pytest.raises(ValueError, match="on the GPU"):
        WhileGraph(object(), torch.zeros(1, dtype=torch.int32))  # type: ignore[arg-type]
