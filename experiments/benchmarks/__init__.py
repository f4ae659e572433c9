"""Measurements that anyone can repeat: speed against raw matrix products, CIFAR-10 accuracy."""
