"""Rules on noisy gradients, and schedules."""
