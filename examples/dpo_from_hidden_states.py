"""DPO on pairs of token sequences; the gradient is exact and no logits are held."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import suder_ext

torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, num_attention_heads=4, **sizes))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

ids = torch.randint(1000, (4, 12))  # chosen, rejected, chosen, rejected
target = ids[:, 1:].clone()
target[:, :4] = -100  # the prompt is not scored
cu_seqlens = torch.arange(0, 45, 11)


def head() -> tuple[torch.Tensor, ...]:
    hidden = model.model(ids[:, :-1]).last_hidden_state
    return hidden.reshape(-1, 64), model.lm_head.weight, target.reshape(-1), cu_seqlens


with torch.no_grad():
    reference = suder_ext.linear_sequence_logprob(*head(), reduction="sum")
for step in range(10):
    result = suder_ext.linear_preference_loss(
        *head(), ref_logprob=reference, loss_type="sigmoid", reduction="mean"
    )
    result.loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    margin = (result.chosen_reward - result.rejected_reward).mean()
    print(f"step {step}: loss {result.loss.item():.4f}, margin {margin.item():.4f}")
