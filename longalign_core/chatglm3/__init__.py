"""ChatGLM3, whose classes exist only as code beside its weights, brought into transformers' own GLM classes."""
