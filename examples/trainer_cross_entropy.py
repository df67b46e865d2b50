"""transformers' Trainer without logits: three lines in the model's forward, also for many GPUs."""

import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from suder_ext import linear_cross_entropy


class Fused(LlamaForCausalLM):
    def forward(self, input_ids, labels, attention_mask=None, num_items_in_batch=None, **rest):
        hidden = self.model(input_ids, attention_mask, **rest).last_hidden_state[:, :-1]
        target = labels[:, 1:]
        items = (target != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = linear_cross_entropy(hidden, self.lm_head.weight, target, reduction="sum")
        return {"loss": loss / items}


torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
config = LlamaConfig(vocab_size=1000, num_attention_heads=4, **sizes)
ids = torch.arange(16).repeat(8, 1) + torch.arange(8)[:, None]
labels = ids.masked_fill(torch.arange(16) <= torch.arange(8)[:, None], -100)  # of the answers only
rows = [{"input_ids": i, "labels": j} for i, j in zip(ids, labels, strict=True)]
arguments = TrainingArguments(
    tempfile.mkdtemp(),
    max_steps=8,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    learning_rate=1e-2,
    logging_steps=1,
    report_to=[],
    use_cpu=True,
)
Trainer(Fused(config), arguments, train_dataset=rows).train()
