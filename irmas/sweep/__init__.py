"""Many runs: the plan of a sweep and the ways to run its points."""
