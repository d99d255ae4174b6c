"""Error bars at the edges of float32."""

import numpy as np
import pytest

from ntkest.inference import _chi_square


@pytest.mark.parametrize("scale", [1e-25, 1e25, 1e36])
def test_degrees_of_freedom_do_not_depend_on_the_scale_of_the_moment(scale):
    samples = np.random.default_rng(0).chisquare(3, 12)[:, None]
    without = (samples.sum(0)[None, :] - samples) / 11

    def law(factor):
        moment, replicates = ((factor * a).astype(np.float32) for a in (samples.mean(0) + 0.5, without + 0.5))
        return _chi_square(np, moment, replicates, np.asarray([0.5 * factor], np.float32))

    for found, wanted in zip(law(scale), law(1.0), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
