"""What gives a base model: `load` makes a frozen model with its tokenizer of a `ModelSpec`; the built-in `starter`;
`quantization`. Uses `errors`, `machine` and `spec`.
"""
