"""Training: the DeepSpeed worker, its loss and attention, launching, checkpoints."""
