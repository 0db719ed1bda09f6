"""How the miniature's pre-trained models, which ship with the package, were made."""
