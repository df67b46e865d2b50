"""suder: unified multimodal models that improve themselves with dual self-rewards."""
