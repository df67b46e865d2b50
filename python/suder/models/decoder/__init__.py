"""What adapters share whose language model is a decoder of Llama's kind, whatever their family."""
