"""A net learns: model, augmentation, optimizer, metrics, training loop."""
