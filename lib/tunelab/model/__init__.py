"""What gives a base model: `load` makes a frozen model with its tokenizer of a `ModelSpec`; `hub`, `folder`,
`from_gguf` and the built-in `starter` are where one comes from; `quantization`. Uses `errors`, `machine` and `spec`.
"""
