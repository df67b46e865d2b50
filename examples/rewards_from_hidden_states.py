"""Dual rewards of any transformers model: its last hidden states and its head, never its logits."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import suder_ext

torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, num_attention_heads=4, **sizes))

# Four candidates of one input, each followed by what it should give back: the input's own tokens.
candidates = torch.randint(1000, (4, 6))
back = torch.randint(1000, (1, 5)).expand(4, 5)
with torch.no_grad():
    hidden = model.model(torch.cat([candidates, back], dim=1)).last_hidden_state
predicting = hidden[:, 5:-1]  # a position predicts the token after it

rewards = suder_ext.dual_reward(
    predicting.reshape(-1, 64),
    model.lm_head.weight,
    back.reshape(-1),
    torch.arange(0, 21, 5),  # where each sequence begins
    group_size=4,
)
print("reward   ", rewards.reward)
print("advantage", rewards.advantage)
print("best", rewards.best.item(), "worst", rewards.worst.item())
