"""What Whisper forbids when it chooses the next token, as tensors on the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from harness.errors import UserError

NEVER = 1  # bits of LogitRules.banned
NOT_FIRST = 2


@dataclass(frozen=True)
class LogitRules:
    """The rules of transformers' processors SuppressTokens, SuppressTokensAtBegin and WhisperTimeStamp, and
    tokens that are given.

    banned: uint8 [V], bit NEVER: never chosen; bit NOT_FIRST: not chosen as the first token after the prompt.
    forced: int64 [T], the token that has to stand at an index of history, or -1. Its probability is 1,
        whatever its logit is and whatever else forbids it.
    end: id of the end token.
    timestamp_begin: id of <|0.00|>; -1: no rules for timestamps.
    max_initial_timestamp: largest index of the first timestamp; -1: any.
    """

    banned: torch.Tensor
    forced: torch.Tensor
    end: int
    timestamp_begin: int = -1
    max_initial_timestamp: int = -1

    @classmethod
    def build(
        cls,
        vocabulary: int,
        length: int,
        end: int,
        suppress: Iterable[int] = (),
        begin_suppress: Iterable[int] = (),
        forced: Mapping[int, int] | None = None,
        timestamp_begin: int = -1,
        max_initial_timestamp: int = -1,
        device: torch.device | str = "cpu",
    ) -> LogitRules:
        """The rules for V = vocabulary, T = length. forced: index of history -> token.

        With timestamps the token before <|0.00|>, <|notimestamps|>, is never chosen. Raises UserError.
        """
        never = set(suppress) if timestamp_begin == -1 else {*suppress, timestamp_begin - 1}
        not_first, forced = set(begin_suppress), dict(forced or {})
        _inside("token", {end, *never, *not_first, *forced.values()}, vocabulary)
        _inside("index of a forced token", forced, length)
        banned = torch.zeros(vocabulary, dtype=torch.uint8)
        banned[sorted(never)] |= NEVER
        banned[sorted(not_first)] |= NOT_FIRST
        stands = torch.full((length,), -1, dtype=torch.long)
        for index, token in forced.items():
            stands[index] = token
        return cls(banned.to(device), stands.to(device), end, timestamp_begin, max_initial_timestamp)


def masked_logits(
    logits: torch.Tensor,
    history: torch.Tensor,
    positions: torch.Tensor,
    begin: torch.Tensor,
    rules: LogitRules,
) -> torch.Tensor:
    """The logits [N, V] as float32, -inf where a token is forbidden; see `fused_topk.reference`."""
    vocabulary = logits.shape[1]
    positions = positions.clamp(max=history.shape[1] - 1)
    # NaN can't be compared and inf can't be normalised: a step that overflowed still has to give a token.
    scores = torch.nan_to_num(
        logits.float(), nan=-torch.inf, posinf=torch.finfo(torch.float32).max, neginf=-torch.inf
    )
    token = torch.arange(vocabulary, device=logits.device)
    queries = logits.shape[0] // history.shape[0]
    begins = begin.repeat_interleave(queries, output_size=logits.shape[0])
    first = positions + 1 == begins
    # uint8, not bool: NOT_FIRST counts where `first`, NEVER always
    allowed = (rules.banned & (NEVER | NOT_FIRST * first[:, None].to(torch.uint8))) == 0
    if rules.timestamp_begin >= 0:
        said = history.repeat_interleave(queries, dim=0, output_size=logits.shape[0])
        low, text_low, high = _timestamp_limits(said, positions, begins, first, rules, vocabulary)
        is_text = token < rules.timestamp_begin
        stamp = (token >= low[:, None]) & (token <= high[:, None])
        allowed &= torch.where(is_text, token >= text_low[:, None], stamp)
        scores = torch.where(allowed, scores, -torch.inf)
        text, stamps = scores[:, : rules.timestamp_begin], scores[:, rules.timestamp_begin :]
        only_stamps = stamps.logsumexp(-1) > text.amax(-1)
        allowed &= ~(only_stamps[:, None] & is_text)
    scores = torch.where(allowed, scores, -torch.inf)
    last = rules.forced.shape[0] - 1
    must = torch.where(positions < last, rules.forced[(positions + 1).clamp(max=last)], -1)[:, None]
    only = torch.where(token == must, 0.0, -torch.inf)
    return torch.where(must >= 0, only, scores)


def _timestamp_limits(
    said: torch.Tensor,
    positions: torch.Tensor,
    begins: torch.Tensor,
    first: torch.Tensor,
    rules: LogitRules,
    vocabulary: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(lowest timestamp, lowest text token, highest timestamp) that may follow, [N] each. said: [N, T]."""
    index = torch.arange(said.shape[1], device=said.device)
    is_stamp = (said >= rules.timestamp_begin) & (index >= begins[:, None]) & (index <= positions[:, None])
    # Timestamps stand in pairs: after one that has no partner comes its partner or the end.
    stamp_last = is_stamp.gather(1, positions[:, None])[:, 0]
    before = (positions[:, None] - 1).clamp(min=0)
    stamp_before = (positions - begins < 1) | is_stamp.gather(1, before)[:, 0]
    alone = stamp_last & ~stamp_before
    latest = torch.where(is_stamp, index, -1).amax(-1)
    floor = said.gather(1, latest.clamp(min=0)[:, None])[:, 0] + (~alone).long()
    low = torch.where(latest >= 0, floor, rules.timestamp_begin)
    low = torch.where(stamp_last & stamp_before, vocabulary, low)
    text_low = torch.where(first, rules.timestamp_begin, torch.where(alone, rules.end, 0))
    initial = rules.timestamp_begin + rules.max_initial_timestamp
    high = torch.where(first, initial if rules.max_initial_timestamp >= 0 else vocabulary, vocabulary)
    return low, text_low, high


def _inside(what: str, numbers: Iterable[int], size: int) -> None:
    outside = sorted(number for number in numbers if not 0 <= number < size)
    if outside:
        raise UserError(f"{what} {outside[0]} is outside 0 to {size - 1}", "check the generation config")
