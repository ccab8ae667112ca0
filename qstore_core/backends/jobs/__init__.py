"""Job-type backends: policy, runner and store of submitted jobs."""

__all__: list[str] = []
