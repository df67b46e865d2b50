"""How far a result may be from its float64 oracle, by (what, device, dtype), each with its reason.

A test takes its limits from here and nowhere else: `assert_close(got, expected, **limits)`.
"""

from __future__ import annotations

import torch

TOLERANCES: dict[tuple[str, str, torch.dtype], dict[str, float]] = {
    # Sums of ten float32 terms of size 1 to 10 and an exp of each: a few units in the last place.
    ("objective", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-6},
    # TRL's trainers with our log-probabilities and with theirs: the promise of `patch`.
    ("trl", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-5},
    # (r - mean) / (std + 1e-4): the constant, which keeps equal rewards at 0, shifts 1e-4 / std.
    ("advantage", "cpu", torch.float32): {"rtol": 1e-4, "atol": 1e-6},
    # Of a nominal 95%: what each kind of interval falls short by in 1000 simulated evaluations.
    ("coverage", "cpu", torch.float64): {"rtol": 0.0, "atol": 0.02},
    # Two float32 passes over the same model that differ in the batch: other sums in the same
    # products, carried through every layer.
    ("gradient", "cpu", torch.float32): {"rtol": 1e-3, "atol": 1e-6},
    # A KL's gradient beside that of full logits in float64 over the same layers; absolute: as a
    # part of the largest entry.
    ("kl_gradient", "cpu", torch.float32): {"rtol": 1e-3, "atol": 1e-4},
    # Hidden states and their gradient are rounded to 8 bits by both, not always the same way.
    ("kl_gradient", "cpu", torch.bfloat16): {"rtol": 0.05, "atol": 0.05},
    # Five rounds of two processes and of one, with weights in float64: sums in another order (1e-12
    # measured in weights); what files hold of samples and rewards is float32.
    ("processes", "cpu", torch.float32): {"rtol": 1e-6, "atol": 1e-7},
    # Products of 8 bits, each of which may fall the other way, and Adam's step of 3e-3 after it.
    ("processes", "cpu", torch.bfloat16): {"rtol": 1e-2, "atol": 1e-2},
    # A cached step and a teacher-forced pass over the same tokens: the promise of the sampler.
    ("ratio", "cpu", torch.float32): {"rtol": 0.0, "atol": 1e-4},
    # Both round every layer to 8 bits, and where their sums differ in the last bit of float32 the
    # rounding may fall the other way: 0.035 at most and 0.003 on average on the random model of
    # these tests (0.07 at most with weights of bfloat16). With logits and attention scores rounded
    # as well it was 0.1 and 0.011.
    ("ratio", "cpu", torch.bfloat16): {"rtol": 0.0, "atol": 0.08},
    ("mean_ratio", "cpu", torch.bfloat16): {"rtol": 0.0, "atol": 5e-3},
    # A softmax over ten scores and a sum of ten values, of size 1.
    ("attention", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-6},
    # The same of rounded factors; the weights, below 1, are rounded to 8 bits as well.
    ("attention", "cpu", torch.bfloat16): {"rtol": 0.0, "atol": 5e-3},
    # With adapters, training adds their product to that of the weights and rounds each; the sampler
    # has one matrix of both, rounded: 0.11 and 0.015 on the random model of the tests, whose
    # adapters are large for its weights.
    ("merged", "cpu", torch.bfloat16): {"rtol": 0.0, "atol": 0.16},
    ("mean_merged", "cpu", torch.bfloat16): {"rtol": 0.0, "atol": 2e-2},
    # In float32 the sum of both is rounded once more: 3e-5 of hidden states of size 3.
    ("merged", "cpu", torch.float32): {"rtol": 1e-4, "atol": 1e-4},
    # Log-probabilities down to -20, from hidden states that went through every layer in float32.
    ("model", "cpu", torch.float32): {"rtol": 1e-5, "atol": 2e-5},
    # The same after another cut of the batch.
    ("batch", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-5},
    # Pixels of a VQ model of a dozen convolutions, of size 1; a level of 8 bits is 8e-3.
    ("vq_pixels", "cpu", torch.float32): {"rtol": 1e-4, "atol": 1e-4},
    # Gradients through RMSNorm, which computes in float32 whatever the model's dtype.
    ("layout_gradient", "cpu", torch.float64): {"rtol": 1e-4, "atol": 1e-5},
    # The promise of the rewards; hidden states give about 1e-6.
    ("reward", "cpu", torch.float32): {"rtol": 0.0, "atol": 1e-4},
    # A logistic function, of slope a quarter at most, of a difference of two logits.
    ("judge", "cpu", torch.float32): {"rtol": 0.0, "atol": 2.5e-5},
    # A difference of logits of size 10, each a float32 product after all layers.
    ("answer", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-4},
    # Computed in float64 and rounded once; a gradient adds two such roundings, of parts that may
    # cancel (its share of the loss and of a reward).
    ("preference_loss", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-6},
    # The same over all magnitudes; float32 itself ends at 1e-38, with few digits before.
    ("loss/extremes", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-37},
    # Computed in float64 and rounded once.
    ("policy_loss", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-7},
    # Derivatives up to the second, of the reference in float32: sums over tokens or the vocabulary
    # that may cancel, as those of the operators below; atol is a fraction of the largest.
    ("transform", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-5},
    # A float64 sum of float32 terms, rounded once.
    ("sequence_reduce", "cpu", torch.float32): {"rtol": 1e-6, "atol": 1e-7},
    # Moments in float64, rounded once; where rewards nearly agree, r - mean keeps few digits.
    ("group_advantage", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-6},
    # Where a token's interval of uniform numbers begins: a sum of up to V float32 exponentials,
    # each of a logit rounded by 2^-24 of itself (25 at most in the tests, divided by 0.6).
    ("cumulative", "cpu", torch.float32): {"rtol": 0.0, "atol": 5e-6},
    # The operators of suder_ext. Their atol is relative to the size of the terms that make up the
    # result (tests/ops/compare.py): a log-probability is a difference of logits, a gradient a sum
    # over tokens or over the vocabulary, both of which may cancel.
    #
    # Products and sums are float32 whatever the inputs are, and those are the same for the oracle:
    # rounding of D products and V exponentials. Ten times tighter for 16-bit inputs than promised.
    **{
        (kind, "cpu", dtype): {"rtol": 1e-5, "atol": 1e-5}
        for kind in ("logprob", "lse", "entropy")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    },
    # Of two such heads: the mean of a difference, from which that of their log-sum-exps is taken.
    **{
        ("kl", device, dtype): {"rtol": 1e-5, "atol": 2e-6}
        for device in ("cpu", "cuda")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    },
    # A head in parts against the same kernels on the whole of it: the promise. Both round the same
    # products, in tiles that begin elsewhere.
    **{
        (kind, device, torch.float32): {"rtol": 1e-6, "atol": 1e-6}
        for kind in ("split", "grad_split")
        for device in ("cpu", "cuda")
    },
    # A float32 gradient of a float32 softmax.
    **{
        (kind, "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-5}
        for kind in ("grad_hidden", "grad_weight", "grad_bias", "grad_logits")
    },
    # The same, rounded once to the dtype of the input: half a unit in the last place.
    **{
        (kind, "cpu", dtype): {"rtol": 1.01 * 2.0**-bits, "atol": 2e-5}
        for kind in ("grad_hidden", "grad_weight", "grad_bias", "grad_logits")
        for dtype, bits in ((torch.bfloat16, 8), (torch.float16, 11))
    },
    # On processors that multiply bfloat16 the gradient of a logit is rounded to it (2^-9 of itself)
    # before the products over the vocabulary and over the tokens.
    **{
        (f"{kind}/bfloat16", device, torch.bfloat16): {"rtol": 1.01 * 2.0**-8, "atol": 2.0**-8}
        for device in ("cpu", "cuda")
        for kind in ("grad_hidden", "grad_weight")
    },
    # CUDA, emulated or not: float32 products and sums, as on the CPU.
    **{
        (kind, "cuda", dtype): {"rtol": 1e-5, "atol": 1e-5}
        for kind in ("logprob", "lse", "entropy")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    },
    **{
        (kind, "cuda", torch.float32): {"rtol": 1e-5, "atol": 1e-5}
        for kind in ("grad_hidden", "grad_weight", "grad_bias", "grad_logits")
    },
    # From logits, and sums of float32 gradients: rounded once.
    **{
        (kind, "cuda", dtype): {"rtol": 1.01 * 2.0**-bits, "atol": 2e-5}
        for kind in ("grad_logits", "grad_bias")
        for dtype, bits in ((torch.bfloat16, 8), (torch.float16, 11))
    },
    # The same of probabilities that the forward kept in float16, each rounded by 2^-11 of itself (a
    # softcap's or an entropy's gradient takes their logarithm as well). Measured: 4e-5 of the terms
    # with 60 tokens, 2e-4 with few. In float32 it would be twice the memory.
    **{
        ("grad_bias/kept", "cuda", dtype): {"rtol": 1.01 * 2.0**-bits, "atol": 2.0**-11}
        for dtype, bits in ((torch.bfloat16, 8), (torch.float16, 11))
    },
    # The gradient of a logit is rounded to the inputs' dtype before the products.
    **{
        (kind, "cuda", dtype): {"rtol": 1.01 * 2.0**-bits, "atol": 2.0**-bits}
        for kind in ("grad_hidden", "grad_weight")
        for dtype, bits in ((torch.bfloat16, 8), (torch.float16, 11))
    },
    # Gradients that autograd adds up from parts, each rounded to the dtype of the input.
    **{
        (f"{kind}/parts", device, dtype): {"rtol": 1e-5 + 2.0**-bits, "atol": 1e-5 + 2.0**-bits}
        for device in ("cpu", "cuda")
        for kind in ("grad_hidden", "grad_weight", "grad_bias", "grad_logits")
        for dtype, bits in ((torch.float32, 17), (torch.bfloat16, 7), (torch.float16, 10))
    },
}
