"""One GRPO step: advantages of a group's rewards, then the clipped policy loss on log p."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import suder_ext

torch.manual_seed(0)
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, num_attention_heads=4, **sizes))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

prompt = torch.randint(1000, (1, 4)).expand(8, 4)
drawn = model.generate(prompt, do_sample=True, max_new_tokens=6, min_new_tokens=6, pad_token_id=0)
reward = (drawn[:, 4:] % 2 == 0).float().mean(dim=1)  # the part of even tokens, for example
advantage, _, _ = suder_ext.group_advantage(reward, group_size=8)


def logprob() -> torch.Tensor:
    hidden = model.model(drawn[:, :-1]).last_hidden_state[:, 3:]
    return suder_ext.linear_logprob(hidden, model.lm_head.weight, drawn[:, 4:]).reshape(-1)


with torch.no_grad():
    old = logprob()
for step in range(4):  # several on one draw: that is what the clip is for
    loss, metrics = suder_ext.policy_loss(
        logprob(), old, advantage, torch.arange(0, 49, 6), clip=0.2, return_metrics=True
    )
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():+.4f}, clipped {metrics.clip_high.item():.2f}")
