"""ImageNet, its hold-out and its test sets, prepared from the files that people have."""
