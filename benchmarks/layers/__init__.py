"""Commands that measure layers: training, graphs, kernels, accuracy, a GPU."""
