"""A model that suder does not know, as far as rewards ask; suder.models.base has the whole list."""

from contextlib import nullcontext

import torch
from torch import nn

import suder
from suder.models.base import Hidden


class Mine(nn.Module):
    """A GRU over 8 picture codes and 31 letters; pictures have 4 codes, texts end with 0."""

    num_image_tokens, device, dtype = 4, torch.device("cpu"), torch.float32
    computing, has_adapters = staticmethod(nullcontext), staticmethod(lambda: False)
    too_long = staticmethod(lambda direction, text: "")
    tokens_read = staticmethod(lambda direction, condition, lengths, group=1: sum(lengths))

    def __init__(self):
        super().__init__()
        self.table, self.gru, self.head = nn.Embedding(39, 32), nn.GRU(32, 32), nn.Linear(32, 31)

    def tokenize(self, texts):
        return [torch.tensor([ord(letter) % 30 + 1 for letter in text] + [0]) for text in texts]

    def forward(self, direction, condition, targets, group=1):
        draws = direction == "generation"
        given = self.tokenize(condition) if draws else [codes + 31 for codes in condition]
        rows = []
        for i, target in enumerate(targets):
            ids = torch.cat([given[i // group], target + 31 * draws])
            rows.append(self.gru(self.table(ids))[0][-len(target) - 1 : -1])
        ends = torch.tensor([0, *map(len, rows)]).cumsum(0)
        return Hidden(torch.cat(rows), torch.cat([*targets]), ends, *self.head.parameters())


tokens = torch.randint(8, (2, 4))
print(suder.DualReward(Mine()).understanding(tokens, ["a cat", "a dog"]))
