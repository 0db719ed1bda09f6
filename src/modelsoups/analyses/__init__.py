"""The paper's figures and tables beyond Table 3, one module each: data, verdicts and figure."""
