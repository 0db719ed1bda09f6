"""The paper's analyses beyond Table 3, from any pool of ingredients: `modelsoups analyse`."""
