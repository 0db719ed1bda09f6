"""IconNet, the miniature's data: icons by independent designers, rendered as 32x32 images."""
