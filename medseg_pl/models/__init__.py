"""Networks, normalization, losses, optimizers and learning-rate schedules."""
