"""The numbers that the paper and its authors published."""
