"""From a Plan to the tables that the kernels interpret: first `schedule`, then `tables`."""
