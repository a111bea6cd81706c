"""Where decoding stands, in tensors of fixed address on the device: all that a round reads and writes.

Rounds never ask the host. Rolling back is a lower position: what stands in history behind it, and the keys
and values of it in the caches, is stale, masked, and overwritten before it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kernels.accept import accept


@dataclass(frozen=True)
class DecodeState:
    """Of B rows, with room for T tokens and prompts of up to P.

    history: int64 [B, T], token ids, prompt first. position: int64 [B], index of the last known token, whose
    keys and values are in no cache yet. begin: int64 [B], index of the first token after the prompt. limit:
    int64 [B], last index that may be filled. running: int32 [B], 1 while the row is not finished.
    any_running: int32 [1]. rounds: int64 [B], rounds in which the row was running. score: float32 [B], sum
    of the log-probabilities of the chosen tokens.

    What `reset` starts from: prompt int64 [B, P] and present int32 [B], 0 for a row that only fills the
    batch. offsets: int64 [T], 0 to T - 1.
    """

    history: torch.Tensor
    position: torch.Tensor
    begin: torch.Tensor
    limit: torch.Tensor
    running: torch.Tensor
    any_running: torch.Tensor
    rounds: torch.Tensor
    score: torch.Tensor
    prompt: torch.Tensor
    present: torch.Tensor
    offsets: torch.Tensor

    @classmethod
    def allocate(cls, rows: int, length: int, prompt_room: int, device: torch.device | str) -> DecodeState:
        def whole(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        def flags(count: int) -> torch.Tensor:
            return torch.zeros(count, dtype=torch.int32, device=device)

        return cls(
            history=whole(rows, length),
            position=whole(rows),
            begin=whole(rows),
            limit=whole(rows),
            running=flags(rows),
            any_running=flags(1),
            rounds=whole(rows),
            score=torch.zeros(rows, device=device),
            prompt=whole(rows, prompt_room),
            present=flags(rows),
            offsets=torch.arange(length, device=device),
        )

    @property
    def rows(self) -> int:
        return self.history.shape[0]

    def describe_windows(self, prompts: Sequence[Sequence[int]], new_tokens: int, positions: int) -> None:
        """What the next `reset` starts from: a prompt for each window; rows beyond them only fill the batch.

        new_tokens: how many may follow a prompt; positions: how many the model has, prompt included.
        """
        room, longest = self.prompt.shape[1], max(map(len, prompts))
        if not 1 <= longest <= room:
            raise ValueError(f"a prompt has {longest} tokens, and there is room for {room}")
        absent = self.rows - len(prompts)
        filled = [*prompts, *[prompts[0]] * absent]
        begins = [len(prompt) for prompt in filled]
        send([[*prompt, *[0] * (room - len(prompt))] for prompt in filled], self.prompt)
        send(begins, self.begin)
        send([min(begin + new_tokens, positions) - 1 for begin in begins], self.limit)
        send([1] * len(prompts) + [0] * absent, self.present)

    def reset(self) -> None:
        """All rows at the last token of their prompts; a row that is not present stands behind it,
        finished."""
        self.history[:, : self.prompt.shape[1]].copy_(self.prompt)
        self.position.copy_(self.begin - self.present)
        self.running.copy_(self.present)
        self.any_running.copy_(self.present.amax(0, keepdim=True))
        self.rounds.zero_()
        self.score.zero_()

    def places(self, first: int, queries: int) -> torch.Tensor:
        """Indices of history [B, queries], from `first` before (negative) or after the last known token."""
        if queries == 1 and first == 0:
            return self.position[:, None]
        return self.position[:, None] + (self.offsets[:queries] + first)

    def accept(self, chosen: torch.Tensor, logprobs: torch.Tensor, end: int) -> None:
        """Take what the model confirms of the drafts behind position; chosen, logprobs: [B, Q]."""
        accept(
            self.history,
            self.position,
            chosen,
            logprobs,
            self.limit,
            end,
            self.running,
            self.any_running,
            self.rounds,
            self.score,
            pdl=True,
        )


def send(values: Sequence[object], to: torch.Tensor) -> None:
    """Host to device without waiting; the allocator of pinned memory keeps the values until they are
    there."""
    pinned = torch.tensor(values, dtype=to.dtype, pin_memory=to.is_cuda)
    to.copy_(pinned, non_blocking=True)
