"""Will it train, and what can it express? Measures of a layer before it is put into a model, and a plot of each.

`gradient_variance`, `beta_init`, `expressibility`, `entangling_capability`, `fourier_spectrum`, `effective_dimension`,
and the metric of its states: `metric_tensor`, `natural_gradient`.
"""

from .capability import effective_dimension, entangling_capability, expressibility, fourier_spectrum
from .metric import metric_tensor, natural_gradient
from .plots import plot_fourier_spectrum, plot_gradient_variance
from .trainability import GradientVariance, beta_init, gradient_variance

__all__ = [
    "GradientVariance",
    "beta_init",
    "effective_dimension",
    "entangling_capability",
    "expressibility",
    "fourier_spectrum",
    "gradient_variance",
    "metric_tensor",
    "natural_gradient",
    "plot_fourier_spectrum",
    "plot_gradient_variance",
]
