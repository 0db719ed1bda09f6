"""The paper's figures and tables other than the main Table 3. Each module computes one or a few."""
