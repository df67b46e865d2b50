"""The recipe that makes the embedded models: VQ model first, then a supervised warm-up.

`suder pretrain --world shapes --seed 1 --output DIR` runs it; `suder.pretrain.recipe` is its order.
Stands on `models`, which must not know it.
"""
