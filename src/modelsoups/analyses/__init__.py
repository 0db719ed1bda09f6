"""The paper's figures and tables beyond Table 3, one file each: data, verdicts and figure."""
