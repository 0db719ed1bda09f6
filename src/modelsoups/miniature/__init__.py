"""IconNet: the miniature's data. Icons of independent designers, rendered as 32x32 photographs of a sort."""
