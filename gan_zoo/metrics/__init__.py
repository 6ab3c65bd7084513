"""What is measured of generated data: pure functions of tensors, which know nothing of models."""
