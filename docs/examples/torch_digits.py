"""What training does to the kernel of a PyTorch classifier.

A small network learns scikit-learn's handwritten digits: 1,797 images of 8 × 8 pixels. At a few checkpoints we look
at its neural tangent kernel on 64 fixed images. Those have 640 outputs, so K is 640 × 640; it is never formed.

Four numbers tell the story. The trace says how large K is, the effective rank how many directions carry it, the
alignment with the labels whether these directions are those of the task, and the alignment with the kernel
before training how far from "lazy" the training was: for a network that only ever moves within its linearization
it would stay at 1.

    python torch_digits.py [--plot FILE]
"""

import argparse

import torch
from sklearn.datasets import load_digits

import ntkest

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--plot", metavar="FILE", help="draw the four curves")
options = parser.parse_args()

torch.manual_seed(0)
images, labels = (torch.tensor(a) for a in load_digits(return_X_y=True))
images = images.float() / 16
train, train_labels = images[:1500], labels[:1500]
test, test_labels = images[1500:], labels[1500:]
probe, probe_labels = test[:64], test_labels[:64]

model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)


def accuracy():
    with torch.no_grad():
        return (model(test).argmax(1) == test_labels).float().mean().item()


# An optimizer updates parameters in place. A linearization would notice and refuse to go on; the one before training
# is needed later, so it is asked to keep copies.
initial = ntkest.linearize(model, probe, copy=True)

# Every estimate gets the same seed, hence the same probes. The errors of neighbouring checkpoints are then nearly the
# same too, and the curve between them is smoother than its error bars.
names = ("trace", "effective_rank", "alignment", "alignment with the start")
curves = {name: [] for name in names}
checkpoints, epoch = (0, 1, 3, 10, 30), 0
print(f"{'epoch':>5}  {'accuracy':>8}  " + "  ".join(f"{name:>24}" for name in names))
for checkpoint in checkpoints:
    while epoch < checkpoint:
        for batch in torch.randperm(len(train)).split(50):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(train[batch]), train_labels[batch]).backward()
            optimizer.step()
        epoch += 1
    J = ntkest.linearize(model, probe)
    found = dict(ntkest.summary(J, probe_labels, method="reverse", passes=200))
    found["alignment with the start"] = ntkest.alignment(J, initial, method="reverse", passes=400)
    for name in names:
        curves[name].append(found[name])
    cells = (f"{float(found[name]):14.4g} ± {float(found[name].std_error):7.1g}" for name in names)
    print(f"{epoch:5}  {accuracy():8.1%}  " + "  ".join(cells))

# What the table says.
trace, rank, task, start = ([float(e) for e in curves[name]] for name in names)
assert accuracy() > 0.9
assert abs(start[0] - 1) < 1e-5  # the same kernel, seen through the same probes
assert start[-1] < 0.9  # training was not lazy
assert task[-1] > 2 * task[0]  # the kernel turned towards the labels
assert trace[-1] > 2 * trace[0]  # and grew

# Nothing has to be believed: 640 passes give the last kernel exactly, and the error bars can be held against it.
exact = dict(ntkest.summary(J, probe_labels, method="exact"))
exact["alignment with the start"] = ntkest.alignment(J, initial, method="exact")
for name in names:
    estimate = curves[name][-1]
    low, high = estimate.interval(0.999)
    print(f"{name}: {float(estimate):.4g}, exactly {float(exact[name]):.4g}")
    assert low <= float(exact[name]) <= high

if options.plot:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3), layout="constrained")
    for ax, name in zip(axes, names, strict=True):
        values = [float(e) for e in curves[name]]
        ends = [e.interval() for e in curves[name]]
        below = [v - low for v, (low, _) in zip(values, ends, strict=True)]
        above = [high - v for v, (_, high) in zip(values, ends, strict=True)]
        ax.errorbar(checkpoints, values, yerr=[below, above], marker="o", capsize=3)
        ax.set(xlabel="epoch", title=name.replace("_", " "), xscale="symlog")
    figure.savefig(options.plot)
