"""Best of eight captions, by how likely the model would draw the picture for each."""

import suder

model = suder.load_model("shapes")
picture = suder.sample(model, "generation", ["a red circle above a blue square"], seed=1).tokens
pixels = model.pixels(model.decode(picture).numpy())  # or of your own: model.pixels([PIL image])
drawn = suder.sample(model, "understanding", pixels, n=8, seed=0, temperature=1.5)

captions = model.detokenize(drawn.tokens)
rewards = suder.DualReward(model).understanding(picture, captions, group=8)
for reward, text in sorted(zip(rewards.tolist(), captions, strict=True), reverse=True):
    print(f"{reward:7.3f}  {text}")
