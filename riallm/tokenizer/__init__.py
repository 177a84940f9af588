"""Text to numbers and back: the hybrid tokenizer, its special tokens, reports."""
