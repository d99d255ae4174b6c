"""The distilled NTK: few points and few gradients of few numbers that predict as the whole kernel does."""
