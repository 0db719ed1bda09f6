"""Average and compare the weights of many checkpoints: sums, content hashes, angles, planes."""
