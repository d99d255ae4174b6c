"""Settings of the benchmark of distillation, which need no framework."""

NETWORKS = ("MLP", "ConvNet")
CLASSES, HELD_OUT = 10, 360
EPOCHS, BATCH, RATE = 80, 64, 2e-3
"""Of the training of teachers, by Adam on the cross-entropy, with a rate that falls as a cosine."""

STEPS, STUDENT_RATE = 300, 1e-2
"""Of the training of students on all of their few points at once."""
