"""Adapters, a folder a family, behind the protocol of `suder.models.base`; loading, LoRA.

Nothing here may know what a model is used for: no rewards, no training, no files but checkpoints.

Families, by config.json's `model_type` (`families.py`): `janus/`; `one_vocabulary/`, Emu3 and
Liquid. What they share is in `decoder/`: a family tells its parts (`decoder.parts.Parts`), its
prompts and its pictures, and `decoder.adapter.DecoderModel` is the rest.

Not there yet: X-Omni, a Qwen2 with two heads. Its adapter would be a model of one vocabulary in
what it reads (the VQ tokens that it draws, `SOM "H W" IMG tokens EOM`, so `reads_tokens`), and of
two in what it draws: `Parts.last_layer` is `lm_head` for texts and the rows `[:image_vocab_size]`
of `mm_head` for pictures, `before_head` the norm of each (`lm_norm`, `mm_norm`), and
`text_embedding` looks ids from `vocab_size` on up in `mm_embed_tokens`. New is that its first
`num_mm_adap_layers` and last `num_mm_head_layers` layers work on picture tokens alone:
`LlamaStep` and the teacher-forced pass must send a row through a layer or past it by the kind of
its token, which is known to both from the layout (a mask `[rows]`, no number that changes, so
steps can still be recorded). Its own forward must not be called: it is remote code, and assembles
logits over both vocabularies. To show a picture takes its FLUX decoder, `vq_decode`; no reward
does.
"""

from suder.models.base import Decoding, Direction, Hidden, UnifiedModel
from suder.models.janus.adapter import Janus
from suder.models.load import load_model

__all__ = ["Decoding", "Direction", "Hidden", "Janus", "UnifiedModel", "load_model"]
