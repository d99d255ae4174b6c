"""The distilled neural tangent kernel: few synthetic gradients that predict as all of them do.

Features Φ (m, O, k) are the gradients of O outputs of m examples in k dimensions; class c has the kernel
K_c = Φ_c Φ_cᵀ. `kernels` forms these, `decomposition` takes their mean apart into global and local eigenvectors,
`compression` makes s gradients out of m, and `prediction` predicts with them; `truncation` and `metrics` say how well.
"""
