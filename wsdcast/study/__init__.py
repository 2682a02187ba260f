"""Studies: the method's comparisons, made with the stages."""
