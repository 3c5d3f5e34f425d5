"""The running batch: one left-padded key/value cache. Sequences join and leave between steps.

Axes: _B rows, _T time (padded on the left), _V vocabulary. Sampling is elsewhere.
"""

from collections.abc import Sequence as Rows
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from leyden.policy.engines.transformers_engine.sequence import Sequence

Layers = list[tuple[Tensor, Tensor]]


class Batch:
    """The running sequences in the order in which they joined; `logits_BV` are the logits of their next tokens."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device: torch.device = model.device
        self.rows: list[Sequence] = []
        self.logits_BV: Tensor | None = None
        self._mask_BT: Tensor | None = None
        self._cache: Any = None

    def join(self, sequences: Rows[Sequence]) -> None:
        """Prefill the prompts (each distinct prompt once) and add them as rows."""
        distinct: dict[tuple[int, ...], int] = {}
        picks = [distinct.setdefault(tuple(sequence.prompt), len(distinct)) for sequence in sequences]
        ids_BT, mask_BT = self._pad(list(distinct))
        output = self._forward(ids_BT, mask_BT, (mask_BT.cumsum(-1) - 1).clamp(min=0), DynamicCache())
        pick = torch.tensor(picks, device=self._device)
        layers = [(keys[pick], values[pick]) for keys, values in _layers(output.past_key_values)]
        self._merge(layers, mask_BT[pick], output.logits[:, -1].float()[pick])
        self.rows.extend(sequences)

    def step(self, tokens: Rows[int]) -> None:
        """Run the model on one new token per row."""
        assert self._mask_BT is not None, "nothing has joined"
        ids_BT = torch.tensor(tokens, device=self._device)[:, None]
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(ids_BT)], dim=-1)
        positions_BT = self._mask_BT.sum(-1, keepdim=True) - 1
        output = self._forward(ids_BT, self._mask_BT, positions_BT, self._cache)
        self._cache, self.logits_BV = output.past_key_values, output.logits[:, -1].float()

    def keep(self, indices: Rows[int]) -> None:
        """Drop all other rows, and the columns that only those used."""
        if len(indices) == len(self.rows):
            return
        if not indices:
            self.clear()
            return
        assert self._mask_BT is not None, "nothing has joined"
        assert self.logits_BV is not None, "nothing has joined"
        pick = torch.tensor(indices, device=self._device)
        mask_BT = self._mask_BT[pick]
        start = int(mask_BT.any(0).int().argmax())
        self._cache = _cache(
            [(keys[pick, :, start:], values[pick, :, start:]) for keys, values in _layers(self._cache)]
        )
        self._mask_BT, self.logits_BV = mask_BT[:, start:], self.logits_BV[pick]
        self.rows = [self.rows[index] for index in indices]

    def clear(self) -> None:
        """Drop all rows and the cache."""
        self.rows, self.logits_BV, self._mask_BT, self._cache = [], None, None, None

    def _forward(self, ids_BT: Tensor, mask_BT: Tensor, positions_BT: Tensor, cache: Any) -> Any:
        return self._model(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )

    def _pad(self, prompts: Rows[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, prompts))
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def _merge(self, layers: Layers, mask_BT: Tensor, logits_BV: Tensor) -> None:
        if self._cache is None or self._mask_BT is None or self.logits_BV is None:
            self._cache, self._mask_BT, self.logits_BV = _cache(layers), mask_BT, logits_BV
            return
        width = max(self._mask_BT.shape[-1], mask_BT.shape[-1])
        both = zip(_layers(self._cache), layers, strict=True)
        self._cache = _cache(
            [
                (_stack(old_keys, keys, width, -2), _stack(old_values, values, width, -2))
                for (old_keys, old_values), (keys, values) in both
            ]
        )
        self._mask_BT = _stack(self._mask_BT, mask_BT, width, -1)
        self.logits_BV = torch.cat([self.logits_BV, logits_BV])


def _layers(cache: Any) -> Layers:
    return [(layer.keys, layer.values) for layer in cache.layers]


def _cache(layers: Layers) -> Any:
    return DynamicCache(ddp_cache_data=layers)


def _stack(upper: Tensor, lower: Tensor, width: int, axis: int) -> Tensor:
    """Left-pad both with zeros to `width` along `axis` and concatenate them along the rows."""
    return torch.cat([_left_pad(upper, width, axis), _left_pad(lower, width, axis)])


def _left_pad(tensor: Tensor, width: int, axis: int) -> Tensor:
    shape = list(tensor.shape)
    shape[axis] = width - shape[axis]
    return torch.cat([tensor.new_zeros(shape), tensor], dim=axis) if shape[axis] else tensor
