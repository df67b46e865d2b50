"""TRL's GRPOTrainer with the dual reward and our log-probabilities; a tiny policy writes captions.

Needs `pip install 'trl==1.16.*'`.
"""

import tempfile

import trl
from datasets import Dataset
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

import suder
from suder.integrations.trl import DualReward
from suder_ext.integrations.trl import patch

judge = suder.load_model("shapes")
drawn = suder.sample(judge, "generation", ["a red circle", "a blue square"], seed=0).tokens
pictures = [Image.fromarray(picture) for picture in judge.decode(drawn).numpy()]
rows = Dataset.from_list([{"prompt": "a", "picture": picture} for picture in pictures])

words = judge.processor.tokenizer
sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
config = LlamaConfig(vocab_size=len(words), num_attention_heads=4, **sizes)
arguments = trl.GRPOConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=4,
    num_generations=4,
    max_completion_length=6,
    max_steps=2,
    logging_steps=1,
    use_cpu=True,
    bf16=False,
    report_to=[],
)
reward = DualReward(judge, direction="understanding", column="picture")
with patch():
    policy = LlamaForCausalLM(config)
    trl.GRPOTrainer(policy, reward, arguments, rows, processing_class=words).train()
