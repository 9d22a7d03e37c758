"""Many runs -> what was learned. Loads without torch."""
